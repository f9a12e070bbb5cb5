"""Reads weights into device arrays, one tensor at a time and of each no more than is needed."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from speccascade.errors import UserError
from speccascade.importing.preparation import Part, Prepared, flat
from speccascade.models.interface import Params
from speccascade.models.loading import Shardings, default_sharding
from speccascade.models.quantisation import int8_keys, to_int8

# How much of a tensor is in memory beside the array that it becomes.
_PIECE = 32 * 2**20


def read_params(prepared: Prepared, shardings: Shardings | None = None) -> Params:
    """Reads all parameters, of which this process holds the shards of its own devices.

    How large they become, and in what dtype, is said before the work begins.

    Args:
      prepared: what to read.
      shardings: how each parameter is laid out; None for whole on the default device.

    Raises:
      UserError: names all weights that hold something that is no number.
    """
    print(f"importing {prepared}", file=sys.stderr)
    shardings = shardings or default_sharding
    leaves, rounded = flat(prepared.shapes), int8_keys(prepared.model)
    # The largest first: beside a part of the model, a second copy of them costs nothing.
    order = sorted(leaves, key=lambda key: -leaves[key].size)
    arrays: dict[str, Any] = {}
    bad: set[str] = set()
    with tqdm.tqdm(
        total=sum(leaf.size * leaf.dtype.itemsize for leaf in leaves.values()),
        unit="B",
        unit_scale=True,
        desc="importing",
        mininterval=0.5,
    ) as bar:
        for key in order:
            leaf, part = leaves[key], prepared.parts[key]
            made = _array(part, leaf, shardings(key, leaf.shape), bad)
            if key in rounded:
                made = jax.block_until_ready(to_int8(made))
            arrays[key] = None if bad else made  # what will be refused need not be kept
            bar.update(leaf.size * leaf.dtype.itemsize)
    if bad:
        names = sorted(bad)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        raise UserError(
            f"these weights hold NaN or infinite values: {', '.join(names[:8])}{more}; the "
            "checkpoint is damaged"
        )
    return jax.tree.unflatten(jax.tree.structure(prepared.shapes), [arrays[key] for key in leaves])


def _array(
    part: Part, leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding, bad: set[str]
) -> jax.Array:
    whole = None if part.in_pieces else part.whole()
    read = {}  # copies of one shard, on several devices, are read once

    def shard(index: tuple[slice, ...]) -> np.ndarray:
        # A slice cannot be a key before Python 3.12.
        bounds = tuple(s.indices(size) for s, size in zip(index, leaf.shape, strict=True))
        if bounds not in read:
            if whole is None:
                read[bounds] = _read(part, leaf, index, bad)
            else:
                _check(part, whole, bad)
                read[bounds] = whole[index].astype(leaf.dtype)
        return read[bounds]

    array = jax.make_array_from_callback(leaf.shape, sharding, shard)
    # Devices that copy do so in the background: no more than one tensor shall wait for it.
    return jax.block_until_ready(array)


def _read(
    part: Part, leaf: jax.ShapeDtypeStruct, index: tuple[slice, ...], bad: set[str]
) -> np.ndarray:
    """Reads a shard piece by piece into an array of the parameter's dtype."""
    bounds = [s.indices(size)[:2] for s, size in zip(index, leaf.shape, strict=True)]
    out = np.empty([stop - start for start, stop in bounds], leaf.dtype)
    first, last = bounds[0]
    row = max(1, int(np.prod(leaf.shape[1:], dtype=np.int64))) * 4
    step = max(1, _PIECE // row)
    for start in range(first, last, step):
        stop = min(start + step, last)
        piece = part.tensor.read_rows(start, stop)[(slice(None), *index[1:])]
        _check(part, piece, bad)
        out[start - first : stop - first] = piece
    return out


def _check(part: Part, piece: np.ndarray, bad: set[str]) -> None:
    if piece.dtype == jnp.bfloat16:  # for which NumPy's isfinite takes as long as the reading
        infinite = np.uint16(0x7F80)
        finite = not ((piece.view(np.uint16) & infinite) == infinite).any()
    else:
        finite = bool(np.isfinite(piece).all())
    if not finite:
        bad.add(part.name)
