"""Weights as whole numbers of one byte, with one scale per output channel.

Only weights: a product converts them inside the pass that reads them, and multiplies its output by
the scale. Half the bytes of bfloat16 are half the time of a decode step that waits for memory.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

LARGEST = 127


@partial(jax.tree_util.register_dataclass, data_fields=("values", "scale"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Int8:
    """A matrix whose row i is `values[i] * scale[i]`; a parameter like any other array.

    Attributes:
      values: int8 `[out, in]`, from -127 to 127; `[R, out, in]` are R matrices.
      scale: float32 `[out]`, or `[R, out]`.
    """

    values: jax.Array
    scale: jax.Array

    @classmethod
    def of(cls, matrix: jax.Array) -> "Int8":
        """Rounds a matrix: the largest number of each row becomes 127."""
        matrix = matrix.astype(jnp.float32)
        largest = jnp.max(jnp.abs(matrix), axis=-1)
        scale = jnp.where(largest > 0, largest / LARGEST, 1.0)
        return cls(jnp.round(matrix / scale[..., None]).astype(jnp.int8), scale)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: jax.Array) -> "Int8":
        return Int8(self.values[rows], self.scale[rows])

    def astype(self, dtype: Any) -> jax.Array:
        """Returns the matrix in a floating dtype."""
        return (self.values.astype(jnp.float32) * self.scale[..., None]).astype(dtype)


def matrix(
    module: nn.Module, name: str, init: Callable, shape: tuple[int, ...], config: Any
) -> jax.Array | Int8:
    """Returns a module's parameter, kept as the model's config says."""
    if config.weight_dtype is None:
        return module.param(name, init, shape, config.param_dtype)
    return module.param(name, lambda key: Int8.of(init(key, shape, jnp.float32)))
