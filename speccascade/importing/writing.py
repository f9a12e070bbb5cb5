"""Writes an imported checkpoint as a workdir, whole or not at all.

config.json      the checkpoint's own; a GGUF file's metadata in the same terms
import.json      from which source it came, in which dtype, and whether its weights were rounded
tokenizer.json   or the tokenizer's other files, as `speccascade.text.load` finds them
model.json       the model's description
checkpoints/     Orbax: the parameters
"""

import dataclasses
import hashlib
import os
import pathlib
import resource
import sys
import time

from etils import epath

from speccascade import models
from speccascade.errors import UserError
from speccascade.importing import arrays, sources
from speccascade.importing.preparation import prepare
from speccascade.inputs import paths
from speccascade.inputs.fields import Fields
from speccascade.models.axes import param_axes
from speccascade.models.loading import Shardings
from speccascade.sharding import Layout, make_mesh
from speccascade.sharding.layout import loading
from speccascade.workdir import checkpoints, files
from speccascade.workdir.storage import storage

_RECORD = "import.json"


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
      out: the workdir.
      new: False where it was there already and nothing was done.
      nbytes: size of the parameters.
      dtype: of most of them.
      seconds: how long it took.
      peak_memory: the most bytes that this process has had in memory, ever.
      memory_before: the same when the import began.
    """

    out: str
    new: bool
    nbytes: int
    dtype: str
    seconds: float
    peak_memory: int
    memory_before: int

    def __str__(self):
        size = f"{self.nbytes / 1e6:,.1f} MB in {self.dtype}"
        if not self.new:
            return f"{self.out} holds this import already ({size}); nothing was done"
        return (
            f"{self.out}: {size} in {self.seconds:.1f} s ({self.nbytes / 1e6 / self.seconds:,.0f} "
            f"MB/s), peak host memory {self.peak_memory / 1e6:,.0f} MB, "
            f"{self.memory_before / 1e6:,.0f} MB of them before the first weight"
        )


def import_checkpoint(
    source: str,
    out: str,
    dtype: str | None = None,
    shardings: Shardings | None = None,
    weights: str | None = None,
) -> Imported:
    """Imports a checkpoint into a new workdir, from which it loads at any sharding.

    Args:
      source: a Hugging Face directory, a folder of T5X or Orbax, a .gguf file, package:NAME/FILE,
        a hub id or a URL.
      out: the workdir, new or empty.
      dtype: see `prepare`.
      shardings: how the parameters are laid out meanwhile; None to spread them over all devices,
        so that a model that fits no single one can be imported.
      weights: see `prepare`.

    Raises:
      UserError: something is wrong with the source or `out`. `out` is then as it was.
    """
    source, out = paths.plain(source), paths.plain(out)
    start, out_path = time.monotonic(), epath.Path(out)
    if shardings is None:
        shardings = loading(Layout(make_mesh()), "expert", param_axes)
    if not paths.is_bucket(out):
        out_path = epath.Path(os.path.abspath(out))
    with storage(out):
        out_path.exists()  # a bucket without its client package: before any work
    with sources.locate(source) as found:
        prepared = prepare(found, dtype, weights)
        description = models.describe(prepared.model)
        record = {
            "source": source,
            "dtype": description["param_dtype"],
            "files": _fingerprint(found.fetch(*sources.CONFIG)),
            **({"weights": weights} if weights else {}),
        }
        before = _peak_memory()

        def report(new: bool) -> Imported:
            seconds = time.monotonic() - start
            size = prepared.nbytes, prepared.dtype
            return Imported(out, new, *size, seconds, _peak_memory(), before)

        if _is_there(out_path, record):
            return report(new=False)
        # Beside `out`, so that renaming it moves no data; of a fixed name, so that what a killed
        # import left is swept away by the next.
        partial = out_path.parent / f".{out_path.name}.partial"
        if partial.exists():
            partial.rmtree()
        try:
            partial.mkdir(parents=True)
            for name, value in (
                ("config.json", prepared.config),
                (_RECORD, record),
                ("model.json", description),
            ):
                files.write_json(os.fspath(partial / name), value)
            prepared.tokenizer.save(partial)
            params = arrays.read_params(prepared, shardings)
            checkpoints.save_params(os.fspath(partial), params)
            if out_path.exists():  # empty: see `_is_there`
                out_path.rmdir()
            partial.rename(out_path)
        finally:
            if partial.exists():
                partial.rmtree()
        return report(new=True)


def _is_there(out: epath.Path, record: dict) -> bool:
    """Returns whether `out` is this very import, finished.

    Raises:
      UserError: it is neither that nor an empty directory nor absent.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file; give another --out")
    if (out / _RECORD).exists():
        try:
            there = Fields.read(out / _RECORD).values
        except UserError:
            there = {}
        if {**there, "source": record["source"]} == record:
            return True
        raise UserError(
            f"{out} holds another import, of {there.get('source')} in "
            f"{there.get('weights') or there.get('dtype')}; give another --out or delete it"
        )
    if any(out.iterdir()):
        raise UserError(f"{out} is not empty; give another --out")
    return False


def _fingerprint(path: pathlib.Path) -> dict[str, list]:
    """Tells checkpoints apart: each file's size, and a hash of pieces from all over it."""
    found, pieces, length = {}, 64, 1 << 14
    for file in sources.files(path):
        size, digest = file.stat().st_size, hashlib.sha256()
        with file.open("rb") as data:
            for piece in range(pieces):
                data.seek(max(0, size - length) * piece // (pieces - 1))
                digest.update(data.read(length))
        name = file.name if file == path else str(file.relative_to(path))
        found[name] = [size, digest.hexdigest()[:16]]
    return found


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
