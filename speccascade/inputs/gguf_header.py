"""The header of a GGUF file: its metadata, and where its tensors lie.

`gguf` has a reader of its own, which makes several NumPy objects of every token: 25 s for a
vocabulary of 262,144. This one takes a hundredth of that.
"""

import dataclasses
import math
import mmap
import os
from typing import Any

import gguf
import numpy as np

from speccascade.errors import UserError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_AXES = 4  # of ggml
_MOST_NESTED = 4  # arrays in arrays, of which the format sets no limit

_Type = gguf.GGUFValueType
_NUMBERS: dict[int, str] = {
    _Type.UINT8: "<u1",
    _Type.INT8: "<i1",
    _Type.UINT16: "<u2",
    _Type.INT16: "<i2",
    _Type.UINT32: "<u4",
    _Type.INT32: "<i4",
    _Type.UINT64: "<u8",
    _Type.INT64: "<i8",
    _Type.FLOAT32: "<f4",
    _Type.FLOAT64: "<f8",
    _Type.BOOL: "?",
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
      name: as the file has it.
      shape: its sizes, outermost first.
      kind: how its numbers are written, "F16" or "Q4_K"; "type N" where `gguf` knows none of that
        number.
      offset: of its first byte in the file.
      nbytes: its size; None where `kind` is unknown.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int
    nbytes: int | None


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands before the tensors.

    Attributes:
      metadata: int, float, bool, str or a list of them, by key.
      tensors: in the file's order.
    """

    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]


def read(path: str | os.PathLike) -> Header:
    """Reads a file's header.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: it is no GGUF file, cut short, of another byte order or version, or damaged.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if size == 0:  # of which there is no map
                raise _Damage("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(_Cursor(data, size))
        except _Damage as damage:
            raise UserError(
                f"{os.fspath(path)} is no GGUF file or is cut short ({damage}); copy it again"
            ) from None
        except _Foreign as foreign:
            raise UserError(f"{os.fspath(path)} {foreign}") from None


class _Damage(Exception):
    """Something that no writer of the format writes."""


class _Foreign(Exception):
    """Something that is right and not for this reader."""


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap, size: int):
        self._data, self.size, self.at = data, size, 0

    def take(self, nbytes: int) -> bytes:
        end = self.at + nbytes
        if end > self.size:
            raise _Damage(f"{nbytes:,} bytes from {self.at:,} on go beyond its {self.size:,}")
        found = self._data[self.at : end]
        self.at = end
        return found

    def integer(self, nbytes: int) -> int:
        return int.from_bytes(self.take(nbytes), "little")

    def string(self) -> str:
        start = self.at
        try:
            return self.take(self.integer(8)).decode()
        except UnicodeDecodeError:
            raise _Damage(f"the text at byte {start:,} is not UTF-8") from None

    def value(self, kind: int, nested: int = 0) -> Any:
        if kind in _NUMBERS:
            return self.numbers(kind, 1)[0]
        if kind == _Type.STRING:
            return self.string()
        if kind == _Type.ARRAY and nested < _MOST_NESTED:
            inner, count = self.integer(4), self.integer(8)
            if inner in _NUMBERS:
                return self.numbers(inner, count)
            # Every entry takes some bytes: a count that is damaged ends where the file does.
            return [self.value(inner, nested + 1) for _ in range(count)]
        raise _Damage(f"the value at byte {self.at:,} has the unknown type {kind}")

    def numbers(self, kind: int, count: int) -> list[Any]:
        dtype = np.dtype(_NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()


def _read(cursor: _Cursor) -> Header:
    if (magic := cursor.take(4)) != _MAGIC:
        raise _Damage(f"it begins with {magic!r}")
    version = cursor.integer(4)
    if version & 0xFFFF == 0:
        raise _Foreign("is written in big-endian byte order, which is not read; convert it")
    if version not in _VERSIONS:
        raise _Foreign(
            f"is GGUF of version {version}, which is not read, only "
            f"{' and '.join(map(str, _VERSIONS))}; convert it with a newer llama.cpp"
        )
    num_tensors, num_fields = cursor.integer(8), cursor.integer(8)
    metadata: dict[str, Any] = {}
    for _ in range(num_fields):
        key = cursor.string()
        if key in metadata:
            raise _Damage(f"it has {key!r} twice")
        metadata[key] = cursor.value(cursor.integer(4))
    found = [_tensor(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _Damage(f"general.alignment is {alignment!r}, no power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors = {}
    for tensor in found:
        placed = dataclasses.replace(tensor, offset=start + tensor.offset)
        if tensor.name in tensors:
            raise _Damage(f"it has tensor {tensor.name!r} twice")
        if (end := placed.offset + (tensor.nbytes or 0)) > cursor.size:
            raise _Damage(f"tensor {tensor.name!r} ends at byte {end:,} of {cursor.size:,}")
        tensors[tensor.name] = placed
    return Header(metadata, tuple(tensors.values()))


def _tensor(cursor: _Cursor) -> TensorInfo:
    """Reads a tensor's entry; its offset counts from the first tensor on."""
    name = cursor.string()
    if (axes := cursor.integer(4)) > _MOST_AXES:
        raise _Damage(f"tensor {name!r} has {axes} axes")
    shape = tuple(reversed([cursor.integer(8) for _ in range(axes)]))
    number, offset = cursor.integer(4), cursor.integer(8)
    try:
        kind = gguf.GGMLQuantizationType(number)
    except ValueError:
        return TensorInfo(name, shape, f"type {number}", offset, None)
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    width = shape[-1] if shape else 1
    if width % block:
        raise _Damage(f"tensor {name!r} of type {kind.name} has rows of {width}, not of {block}s")
    return TensorInfo(name, shape, kind.name, offset, math.prod(shape) // block * nbytes)
