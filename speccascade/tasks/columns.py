"""Rows of a benchmark, from the Hugging Face hub or a directory of files, and what columns hold."""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths, plain_text, text_files

Rows = Sequence[Mapping[str, Any]]
_LINES = (".jsonl", ".jsonl.gz")
_ENDINGS = (*_LINES, ".parquet")
# What a list looks like that went through a table (CSV, pandas): no answer, and its items unknown.
_SPELLED_LIST = re.compile(r"\s*(\[.*\]|\{.*\}|\(\s*['\"].*['\"]\s*,?\s*\))\s*", re.DOTALL)


class Hub(NamedTuple):
    """A data set on the hub.

    Attributes:
      id: "owner/name".
      subset: the name of its configuration, None where it has one only.
      revision: None for the newest.
    """

    id: str
    subset: str | None = None
    revision: str | None = None


def read(hub: Hub, path: str | None, revision: str | None, split: str) -> Rows:
    """Reads one split.

    Args:
      hub: where the rows come from if `path` is None.
      path: a directory: of `<split>.jsonl` (or `.jsonl.gz`), a row's columns as one JSON object per
        line, or `<split>.parquet`; of `Dataset.save_to_disk`; or of whatever else
        `datasets.load_dataset` reads.
      revision: of the hub's data set, None for `hub.revision`.
      split: as the data set calls it.

    Raises:
      UserError: it cannot be read; the message says why and what to do.
    """
    if path is None:
        revision = revision or hub.revision
        return _load("load_dataset", hub.id, name=hub.subset, revision=revision, split=split)
    path = paths.plain(path)
    directory = epath.Path(path)
    if not directory.is_dir():
        raise UserError(f"task.path={path} is no directory; leave it out to read {hub.id}")
    for ending in _ENDINGS:
        if (file := directory / (split + ending)).exists():
            return from_file(file)
    if any(file.name.endswith(_LINES) for file in directory.iterdir()):
        raise UserError(f"task.path={path} has no {split}.jsonl; add it")
    if (directory / "dataset_dict.json").exists():
        saved = _load("load_from_disk", path)
        if split not in saved:
            raise UserError(f"task.path={path} has no split {split!r}, only {', '.join(saved)}")
        return saved[split]
    # A copy of the hub's repository has its subsets; a directory of plain files has none.
    subsets = _load("get_dataset_config_names", path)
    subset = hub.subset if hub.subset in subsets else None
    return _load("load_dataset", path, name=subset, split=split)


def _load(function: str, source: str, **arguments: Any) -> Any:
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise UserError(
            f"{source} needs the package datasets: pip install -r requirements-tasks.txt, or point "
            "task.path at a directory of JSON lines"
        ) from None
    try:
        return getattr(library, function)(source, **arguments)
    except Exception as error:  # of many libraries: network, files, formats
        line = " ".join(str(error).split())[:300]
        raise UserError(
            f"datasets cannot read {source} ({type(error).__name__}: {line}); check task.path or, "
            "for the hub, the network and task.revision"
        ) from None


def from_file(file: text_files.Path) -> list[dict[str, Any]]:
    """Reads all rows of a file; see `text_files.read_rows`.

    Raises:
      UserError: it cannot be read, or has none.
    """
    rows = [row for _, row in text_files.read_rows(file)]
    if not rows:
        raise UserError(f"{file} has no rows")
    return rows


def text(row: Mapping[str, Any], *path: str) -> str:
    """Returns the text in a column, or in a field of it: `text(row, "translation", "de")`.

    Raises:
      UserError: there is none.
    """
    return plain_text.one(_field(row, path), ".".join(path))


def texts(row: Mapping[str, Any], *path: str) -> tuple[str, ...]:
    """Returns the texts in a column that are not blank; one that is no list is a list of one.

    Raises:
      UserError: it holds something else, or one text that spells a list.
    """
    name, value = ".".join(path), _field(row, path)
    if isinstance(value, str) and _SPELLED_LIST.fullmatch(value):
        raise UserError(
            f"{name} is a text that spells a list, {plain_text.show(value)}; give a list of texts"
        )
    return tuple(found for found in plain_text.several(value, name) if found.strip())


def _field(row: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = row
    for depth, name in enumerate(path):
        if not isinstance(value, Mapping):
            parent = ".".join(path[:depth])
            raise UserError(f"{parent} must be an object, not {plain_text.show(value)}")
        if name not in value:
            raise UserError(f"{'.'.join(path[: depth + 1])!r} is missing")
        value = value[name]
    return value
