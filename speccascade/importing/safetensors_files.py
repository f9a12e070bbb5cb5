"""Reads the weights of a Hugging Face directory: one safetensors file, or shards with an index."""

import functools
import pathlib
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from speccascade.errors import UserError
from speccascade.importing.checkpoint import Checkpoint, Tensor
from speccascade.inputs.fields import Fields

READABLE = ("F32", "F16", "BF16")
INDEX = "model.safetensors.index.json"


def read(folder: pathlib.Path) -> Checkpoint:
    """Lists a directory's tensors without reading them.

    Raises:
      UserError: it has no weights in this format, or its index is damaged.
    """
    if (folder / INDEX).exists():
        return _read_shards(folder)
    path = folder / "model.safetensors"
    if not path.exists():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".gguf", ".h5"))
        hint = f" (it has {', '.join(others[:3])})" if others else ""
        raise UserError(f"{folder} has neither model.safetensors nor {INDEX}{hint}")
    try:
        return Checkpoint(_tensors(path), READABLE)
    except SafetensorError as error:
        return Checkpoint({}, READABLE, (_damaged(path, error),))


def _read_shards(folder: pathlib.Path) -> Checkpoint:
    index = Fields.read(folder / INDEX)
    weight_map = index.object("weight_map")
    shard_of = {name: weight_map.text(name) for name in weight_map.values}
    if not shard_of:
        raise index.wrong("weight_map", "a shard for each tensor")
    tensors: dict[str, Any] = {}
    problems: list[str] = []
    bad: set[str] = set()
    for shard in sorted(set(shard_of.values())):
        path = folder / shard
        try:
            if path.parent != folder or not path.exists():
                raise FileNotFoundError
            tensors |= _tensors(path)
        except FileNotFoundError:
            problems.append(f"shard {shard} is missing")
            bad.add(shard)
        except SafetensorError as error:
            problems.append(_damaged(path, error))
            bad.add(shard)
    lost = set(shard_of) - set(tensors)
    for name in sorted(lost):
        if shard_of[name] not in bad:
            problems.append(f"{INDEX} has {name} in {shard_of[name]}, which does not hold it")
    return Checkpoint(tensors, READABLE, tuple(problems), frozenset(lost))


def _damaged(path: pathlib.Path, error: Exception) -> str:
    return f"{path.name} is damaged or cut short ({error})"


def _tensors(path: pathlib.Path) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            piece = file.get_slice(name)
            shape, dtype = tuple(piece.get_shape()), piece.get_dtype()
            read_rows = functools.partial(_read_rows, path, name) if dtype in READABLE else None
            tensors[name] = Tensor(shape, dtype, read_rows)
    return tensors


def _read_rows(path: pathlib.Path, name: str, start: int, stop: int) -> np.ndarray:
    # Opened anew for every piece: the pages that were read count as this process's memory for as
    # long as the file is open. (NumPy knows bfloat16 by ml_dtypes, which JAX registers.)
    with safe_open(path, "np") as file:
        return file.get_slice(name)[start:stop]
