"""Reads the folders that JAX programs keep models in: their arrays by their Hugging Face names.

Such a folder has neither a config nor, often, a tokenizer. A layout (`t5x_layout.py`,
`gemma_layout.py`) tells the config.json that names and shapes imply, and where each tensor lies. A
config.json beside the arrays goes before it; it may hold those fields alone that no shape tells.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from speccascade import text
from speccascade.errors import UserError
from speccascade.importing import gemma_layout, sources, stored_arrays, t5x_layout
from speccascade.importing.architectures import text_config
from speccascade.importing.checkpoint import Checkpoint, Tensor
from speccascade.importing.layout import Layout, Place
from speccascade.importing.stored_arrays import StoredArray
from speccascade.inputs.fields import Fields
from speccascade.text import Tokenizer

_LAYOUTS = (t5x_layout, gemma_layout)
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
    kind = next((kind for kind in _LAYOUTS if kind.is_one(names)), None)
    beside = _beside(folder)
    try:
        if kind is None:
            known = " nor ".join(kind.EXAMPLE for kind in _LAYOUTS)
            raise UserError(
                f"{folder} holds no model of a known layout: it has neither {known}, and layers "
                "that are stacked are not implemented"
            )
        layout = kind.read(found)
        if unsaid := [name for name in layout.unsaid if not beside.has(name)]:
            raise UserError(
                f"{folder} is of no published size; put a config.json into it that says "
                f"{', '.join(unsaid)}"
            )
    except UserError as error:
        raise UserError("; ".join([*found.problems, str(error)])) from None
    # It may have more rows than the tokenizer has ids.
    rows = {name: layout.config[name] for name in ("architectures", "vocab_size")}
    return {**layout.config, **beside.values, **rows}, _checkpoint(layout, found)


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


def _beside(folder: pathlib.Path) -> Fields:
    path = folder / "config.json"
    return text_config(Fields.read(path)) if path.exists() else Fields({}, str(path))


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
