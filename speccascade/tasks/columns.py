"""Rows of a benchmark: from the Hugging Face hub, a directory of its files, or JSON lines."""

import gzip
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from speccascade import paths
from speccascade.errors import UserError

Rows = Sequence[Mapping[str, Any]]
_ENDINGS = (".jsonl", ".jsonl.gz")


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
        line; of `Dataset.save_to_disk`; or of whatever else `datasets.load_dataset` reads.
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
            return json_lines(file)
    if any(file.name.endswith(_ENDINGS) for file in directory.iterdir()):
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


def json_lines(file: epath.Path) -> list[dict[str, Any]]:
    """Reads a file of one JSON object per line, gzipped if its name says so.

    Raises:
      UserError: it cannot be read, or a line is no JSON object.
    """
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.name.endswith(".gz") else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({type(error).__name__}: {error})") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file} line {number} is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{file} line {number} must be a JSON object")
        rows.append(row)
    return rows
