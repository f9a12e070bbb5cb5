"""What lies in a device's memory, by arithmetic over shapes and shardings."""

import math
from collections.abc import Iterator
from typing import Any

import jax

from speccascade.errors import UserError
from speccascade.models.interface import Params

WEIGHTS = ("bfloat16", "int8")


def check_weights(kind: str) -> None:
    """Raises UserError for a kind of weights that there is not."""
    if kind not in WEIGHTS:
        raise UserError(f"weights {kind!r} are unknown; choose one of: {', '.join(WEIGHTS)}")


def leaves(tree: Any) -> Iterator[tuple[str, jax.ShapeDtypeStruct]]:
    """Yields flat key, "attention_0/query/weight", and leaf of a pytree of shapes."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def local(leaf: jax.ShapeDtypeStruct) -> tuple[int, ...]:
    """Returns the shape that one device holds of a leaf, all of it where it has no sharding."""
    return leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)


def size(tree: Any) -> int:
    """Returns the bytes that one device holds of a pytree of shapes."""
    return sum(math.prod(local(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def is_product(key: str, leaf: jax.ShapeDtypeStruct) -> bool:
    """Returns whether a parameter is the matrix of a product, or an embedding table."""
    return leaf.ndim == 2 and not key.endswith("relative/embedding")


def weight_bytes(key: str, leaf: jax.ShapeDtypeStruct, kind: str) -> int:
    """Returns the bytes that one device holds of a parameter.

    Args:
      key: its flat key.
      leaf: its shape.
      kind: one of `WEIGHTS`. "int8" stores matrices as one byte per number and a float32 scale per
        output channel; all else stays as it is.
    """
    if kind == "int8" and is_product(key, leaf):
        rows, columns = local(leaf)
        return rows * columns + 4 * rows
    return size(leaf)


def weights(params: Params, kind: str) -> int:
    """Returns the bytes that one device holds of a model's parameters."""
    return sum(weight_bytes(key, leaf, kind) for key, leaf in leaves(params))
