"""Reads the folders that JAX programs keep models in: their arrays by their Hugging Face names.

What a layout (`t5x_layout.py`) tells of such a folder, which has neither a config nor a
tokenizer: the config.json that its shapes imply, and where each tensor lies. A config.json beside
the arrays has the last word, and may hold those fields alone that no shape tells.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from speccascade import text
from speccascade.errors import UserError
from speccascade.importing import sources, stored_arrays, t5x_layout
from speccascade.importing.checkpoint import Checkpoint, Tensor
from speccascade.importing.layout import Layout, Place
from speccascade.importing.stored_arrays import StoredArray
from speccascade.inputs.fields import Fields
from speccascade.text import Tokenizer

READABLE = ("F32", "F16", "BF16")


def find(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of arrays at a path: itself or the only one in it; None where none is."""
    if any(path.glob("*.safetensors")):
        return None
    if _has_arrays(path):
        return path
    inner = [child for child in path.iterdir() if child.is_dir() and _has_arrays(child)]
    return inner[0] if len(inner) == 1 else None


def _has_arrays(folder: pathlib.Path) -> bool:
    return any(any(folder.glob(mark)) for mark in sources.ARRAYS)


def read(folder: pathlib.Path) -> tuple[dict[str, Any], Checkpoint]:
    """Lists a folder's tensors without reading them.

    Returns:
      The fields of the config.json that the same model has in the Hugging Face layout, and the
      tensors.

    Raises:
      UserError: it holds no model of a known layout, or too little of it to tell its sizes.
    """
    found = stored_arrays.find(folder)
    names = {*found.arrays, *found.lost}
    try:
        if not t5x_layout.is_one(names):
            raise UserError(
                f"{folder} holds no model of a known layout, which is that of T5X "
                f"({t5x_layout.EXAMPLE})"
            )
        layout = t5x_layout.read(found.arrays)
    except UserError as error:
        raise UserError("; ".join([*found.problems, str(error)])) from None
    config = {**layout.config, **_beside(folder)}
    return config, _checkpoint(layout, found)


def tokenizer(folder: pathlib.Path, config: Mapping[str, Any]) -> Tokenizer:
    """Reads the tokenizer, which lies beside the arrays or in the folder above.

    Args:
      folder: that holds the arrays.
      config: the fields that `read` found.

    Raises:
      UserError: there is none, or it is damaged.
    """
    for place in (folder, folder.parent):
        if text.is_in(place):
            return text.load(place, config)
    raise UserError(
        f"{folder} has no tokenizer, as is usual for what JAX programs write; copy the model's "
        "sentencepiece.model, tokenizer.model, spiece.model or tokenizer.json into it"
    )


def _beside(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    return Fields.read(path).values if path.exists() else {}


def _checkpoint(layout: Layout, found: stored_arrays.StoredArrays) -> Checkpoint:
    """Returns the tensors by their Hugging Face names; what no place is known for by its own."""
    called = {place.name: place.stored for place in layout.places}
    problems, lost = list(found.problems), set()
    tensors, used = {}, set()
    for place in layout.places:
        used.add(place.stored)
        array = found.arrays.get(place.stored)
        if array is None:
            if place.stored in found.lost:
                lost.add(place.name)
        elif len(array.shape) != place.rank:
            problems.append(f"{place.stored} is {list(array.shape)}: not {place.rank} axes")
            lost.add(place.name)
        else:
            tensors[place.name] = _tensor(place, array)
    for name, array in found.arrays.items():
        if name not in used and not layout.ignores(name):
            tensors[name] = Tensor(array.shape, array.dtype, None, in_pieces=False)
    return Checkpoint(tensors, READABLE, tuple(problems), frozenset(lost), called)


def _tensor(place: Place, array: StoredArray) -> Tensor:
    shape = place.lay(np.broadcast_to(np.float32(0), array.shape)).shape
    rows = functools.partial(_rows, place, array) if array.dtype in READABLE else None
    # It lies in few pieces, all of which are unpacked to lay out some of its rows.
    return Tensor(shape, array.dtype, rows, in_pieces=False)


def _rows(place: Place, array: StoredArray, start: int, stop: int) -> np.ndarray:
    return place.lay(array.read())[start:stop]
