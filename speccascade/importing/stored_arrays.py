"""Arrays that T5X or Orbax wrote into a folder, listed by name and read one at a time.

Each is a zarr folder, or one inside an OCDBT database (Orbax's usual form), or lies in the msgpack
file `checkpoint` as flax serialises it (T5X's unpartitioned parameters).
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np
import tensorstore as ts

from speccascade.errors import UserError

FILE = "checkpoint"
DATABASE = "manifest.ocdbt"

# How this package calls dtypes, by how zarr and msgpack do.
DTYPES = {
    "<f4": "F32",
    "float32": "F32",
    "<f2": "F16",
    "float16": "F16",
    "bfloat16": "BF16",
}
_NUMPY: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}

_NDARRAY = 1  # flax's type of a msgpack extension that holds (shape, dtype, bytes)


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array, not yet read.

    Attributes:
      shape: its sizes.
      dtype: as `DTYPES` has it; one that is not there cannot be read.
      read: returns all of it. UserError: it is damaged.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class StoredArrays:
    """What a folder holds.

    Attributes:
      arrays: by name, "target/encoder/encoder_norm/scale".
      problems: what is wrong with the files, each a phrase.
      lost: names of arrays that are lost with what `problems` says.
    """

    arrays: dict[str, StoredArray]
    problems: tuple[str, ...] = ()
    lost: frozenset[str] = frozenset()


def find(folder: pathlib.Path) -> StoredArrays:
    """Lists the arrays of a folder, none of which is read."""
    arrays: dict[str, StoredArray] = {}
    problems: list[str] = []
    lost: set[str] = set()
    try:
        arrays, lost = _zarr(folder)
    except (ValueError, LookupError, TypeError) as error:  # of tensorstore, and of its metadata
        problems.append(f"{folder} is damaged or cut short ({_line(error)})")
    if lost:
        names = sorted(lost)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        problems.append(
            f"files are missing of {', '.join(names[:8])}{more}; copy {folder.name} again"
        )
    if (folder / FILE).is_file():
        try:
            arrays |= _in_msgpack(folder / FILE)
        except (ValueError, IndexError, msgpack.UnpackException) as error:
            reason = _line(error) or "it ends early"
            problems.append(f"{FILE} is no msgpack of arrays, perhaps cut short ({reason})")
    return StoredArrays(arrays, tuple(problems), frozenset(lost))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _store(folder: pathlib.Path) -> dict[str, Any]:
    """Returns where tensorstore finds the keys of a folder."""
    files = {"driver": "file", "path": f"{folder}/"}
    return {"driver": "ocdbt", "base": files} if (folder / DATABASE).exists() else files


def _zarr(folder: pathlib.Path) -> tuple[dict[str, StoredArray], set[str]]:
    """Returns the zarr arrays of a folder, and the names of those of which some files are gone."""
    store = ts.KvStore.open(_store(folder)).result()
    keys = [key.decode() for key in store.list().result()]
    metadata = {
        key.removesuffix("/.zarray"): store.read(key) for key in keys if key.endswith("/.zarray")
    }
    pieces: dict[str, int] = dict.fromkeys(metadata, 0)
    for key in keys:
        match = re.fullmatch(r"(.+?)/[\d./]+", key)
        if match and match[1] in pieces:
            pieces[match[1]] += 1
    arrays, lost = {}, set()
    for key, read in metadata.items():
        said = json.loads(read.result().value)
        shape, chunks = tuple(said["shape"]), said["chunks"]
        name = key.replace(".", "/")
        # Absent pieces would be read as zeros.
        if pieces[key] < math.prod(-(-n // chunk) for n, chunk in zip(shape, chunks, strict=True)):
            lost.add(name)
        else:
            dtype = DTYPES.get(said["dtype"], str(said["dtype"]))
            arrays[name] = StoredArray(shape, dtype, functools.partial(_read_zarr, folder, key))
    return arrays, lost


def _read_zarr(folder: pathlib.Path, key: str) -> np.ndarray:
    store = _store(folder)
    spec = {"driver": "zarr", "kvstore": {**store, "path": store.get("path", "") + key}}
    try:
        return ts.open(spec, open=True, read=True).result().read().result()
    except ValueError as error:
        raise UserError(f"{key} in {folder} is damaged or cut short ({_line(error)})") from None


def _in_msgpack(path: pathlib.Path) -> dict[str, StoredArray]:
    """Returns the arrays of a msgpack file. Leaves that only name a zarr folder are passed over."""
    found = {}
    with path.open("rb") as file:
        # Larger arrays than 2 GiB are no leaves: flax cuts them.
        unpacker = msgpack.Unpacker(file, max_buffer_size=0, strict_map_key=False)
        with path.open("rb") as again:
            for names, start in _extensions(unpacker, again, ()):
                name = "/".join(names).removeprefix("optimizer/")
                if (array := _array_at(path, again, start)) is not None:
                    found[name] = array
    return found


def _extensions(unpacker, file, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yields the keys and the offset of each extension within the object that comes next."""
    start = unpacker.tell()
    file.seek(start)
    kind = file.read(1)[0]
    if 0x80 <= kind <= 0x8F or kind in (0xDE, 0xDF):  # a map
        for _ in range(unpacker.read_map_header()):
            yield from _extensions(unpacker, file, (*names, str(unpacker.unpack())))
        return
    unpacker.skip()
    if kind in (0xC7, 0xC8, 0xC9):
        yield names, start


def _array_at(path: pathlib.Path, file, start: int) -> StoredArray | None:
    """Reads what the extension at an offset says of its array, None where it is none."""
    file.seek(start)
    head = file.read(1024)
    size = {0xC7: 1, 0xC8: 2, 0xC9: 4}[head[0]]  # of its length, behind which stands its type
    if head[1 + size] != _NDARRAY:
        return None
    inner = msgpack.Unpacker()
    inner.feed(head[2 + size :])
    inner.read_array_header()
    shape, dtype = tuple(inner.unpack()), inner.unpack()
    at = 2 + size + inner.tell()
    offset = start + at + {0xC4: 2, 0xC5: 3, 0xC6: 5}[head[at]]  # behind the header of the bytes
    dtype = DTYPES.get(dtype, str(dtype))
    return StoredArray(shape, dtype, functools.partial(_read_file, path, shape, dtype, offset))


def _read_file(path: pathlib.Path, shape: tuple[int, ...], dtype: str, offset: int) -> np.ndarray:
    return np.fromfile(path, _NUMPY[dtype], math.prod(shape), offset=offset).reshape(shape)
