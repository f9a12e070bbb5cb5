"""A frozen matrix and a trained one of low rank beside it (Hu et al. 2021, "LoRA")."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.tree_util.register_dataclass, data_fields=("weight", "a", "b"), meta_fields=("scale",))
@dataclasses.dataclass(frozen=True)
class LowRank:
    """The matrix `weight + scale * b @ a`, in the place of a parameter; `weight` is its first leaf.

    A product adds that with `weight` and that with `b @ a`, and never makes their sum: in bfloat16
    a small update would be rounded away.

    Attributes:
      weight: `[out, in]`.
      a: float32 `[rank, in]`.
      b: float32 `[out, rank]`.
      scale: of the second part.
    """

    weight: jax.Array
    a: jax.Array
    b: jax.Array
    scale: float

    def whole(self) -> jax.Array:
        """Returns the matrix, summed in float32, in the dtype of `weight`."""
        update = self.scale * jnp.matmul(self.b, self.a, precision="highest")
        return (self.weight.astype(jnp.float32) + update).astype(self.weight.dtype)
