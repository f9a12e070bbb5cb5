"""Where a checkpoint lies: on this machine, in an installed package, in a bucket, on a hub."""

import contextlib
import importlib.util
import pathlib
import re
import tempfile
from collections.abc import Iterator

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths
from speccascade.workdir.storage import storage

# The files of a checkpoint's directory. The configs come first: they decide whether the rest can be
# read.
CONFIG = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
WEIGHTS = ("*.safetensors", "model.safetensors.index.json")
# What tells a folder of arrays that T5X or Orbax wrote, whose weights lie in further folders.
ARRAYS = ("checkpoint", "manifest.ocdbt", "_METADATA")

FORMS = (
    "give a Hugging Face directory, a folder of T5X or Orbax, a .gguf file, package:NAME/FILE (a "
    "file inside an installed package) or a hub id such as google/gemma-2-2b"
)


class Source:
    """A checkpoint's directory, or its one GGUF file; what is remote is fetched when asked for.

    Attributes:
      name: as the user gave it.
      remote: whether fetching is long work.
    """

    remote = False

    def __init__(self, name: str, path: pathlib.Path):
        self.name = name
        self._path = path

    def fetch(self, *patterns: str) -> pathlib.Path:
        """Returns a local directory with the files that match, or the local GGUF file."""
        del patterns
        return self._path


class _Bucket(Source):
    """Files behind a URL, copied into a scratch directory."""

    remote = True

    def __init__(self, name: str, scratch: str):
        super().__init__(name, pathlib.Path(scratch))
        self._from = epath.Path(name)
        if not self._from.exists():
            raise UserError(f"nothing is at {name}; {FORMS}")
        if not any(self._from.glob(WEIGHTS[0])) and any(
            (self._from / mark).exists() for mark in ARRAYS
        ):
            raise UserError(
                f"{name} is a folder of JAX arrays, which are read from a disk alone; copy it "
                f"first: gcloud storage cp --recursive {name} ."
            )

    def fetch(self, *patterns: str) -> pathlib.Path:
        if self._from.suffix == ".gguf":
            files = [self._from]
        else:
            files = [path for pattern in patterns for path in self._from.glob(pattern)]
        for path in files:
            if not (self._path / path.name).exists():
                path.copy(self._path / path.name)
        return self._path / self._from.name if self._from.suffix == ".gguf" else self._path


class _Hub(Source):
    """A repository of the Hugging Face hub, kept in the hub's own cache."""

    remote = True

    def __init__(self, name: str):
        super().__init__(name, pathlib.Path())

    def fetch(self, *patterns: str) -> pathlib.Path:
        import huggingface_hub

        try:
            return pathlib.Path(
                huggingface_hub.snapshot_download(self.name, allow_patterns=list(patterns))
            )
        except Exception as error:  # of many kinds: no network, no such repository, no access
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"{self.name} is no path on this machine, and the hub did not give it: {reason}"
            ) from error


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns a local checkpoint's files: the GGUF file itself, or those in its directory."""
    if not path.is_dir():
        return [path]
    patterns = (*CONFIG, *TOKENIZER, *WEIGHTS)
    found = {file for pattern in patterns for file in path.glob(pattern)}
    if not any(file.suffix == ".safetensors" for file in found):
        # The optimizer's state is not needed.
        inner = (p for p in path.iterdir() if not p.name.startswith("state."))
        found |= {file for p in inner for file in (p.rglob("*") if p.is_dir() else (p,))}
    return sorted(file for file in found if file.is_file())


def stamps(path: pathlib.Path) -> list[list]:
    """Returns path, size and time of change of a checkpoint's files, without reading them."""
    found = [(file.resolve(), file.stat()) for file in files(path)]
    return [[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in found]


@contextlib.contextmanager
def locate(name: str) -> Iterator[Source]:
    """Finds a checkpoint; what had to be copied from a bucket is deleted at the end.

    Raises:
      UserError: nothing is there.
    """
    name = paths.plain(name)
    if name.startswith("package:"):
        yield Source(name, _in_package(name))
    elif paths.is_bucket(name):
        with tempfile.TemporaryDirectory(prefix="import_") as scratch, storage(name):
            yield _Bucket(name, scratch)
    elif (path := pathlib.Path(name)).exists():
        yield Source(name, path)
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) and path.suffix != ".gguf":
        yield _Hub(name)
    else:
        raise UserError(f"nothing is at {name}; {FORMS}")


def _in_package(name: str) -> pathlib.Path:
    package, _, inside = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{name}: no package {package!r} is installed; install it with pip (its distribution "
            f"may be called {package.replace('_', '-')})"
        )
    root = pathlib.Path(next(iter(spec.submodule_search_locations)))
    if not inside or not (root / inside).exists():
        raise UserError(f"{name}: {root} has no {inside or 'file of no name'}")
    return root / inside
