"""Reductions over the vocabulary axis, whole or sharded over a mesh axis.

Rules, distributions and verification reduce over the vocabulary only through a `Vocab`, so one code
serves arrays that hold all of `V` and, under `jax.shard_map`, arrays that hold a shard of it.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Vocab:
    """How to reduce over the last axis of an array `[..., V]`.

    Attributes:
      axis_name: the mesh axis over which V is sharded; None where the array holds all of it.
    """

    axis_name: str | None = None

    def max(self, x: jax.Array) -> jax.Array:
        """Returns the maximum, `[..., 1]`."""
        y = jnp.max(x, axis=-1, keepdims=True)
        return y if self.axis_name is None else jax.lax.pmax(y, self.axis_name)

    def sum(self, x: jax.Array) -> jax.Array:
        """Returns the sum, `[..., 1]`."""
        y = jnp.sum(x, axis=-1, keepdims=True)
        return y if self.axis_name is None else jax.lax.psum(y, self.axis_name)

    def ids(self, x: jax.Array) -> jax.Array:
        """Returns the token ids of x's last axis, int32 `[V]` (of the shard, where sharded)."""
        first = 0 if self.axis_name is None else jax.lax.axis_index(self.axis_name) * x.shape[-1]
        return first + jnp.arange(x.shape[-1], dtype=jnp.int32)

    def first_argmax(self, x: jax.Array) -> jax.Array:
        """Returns the lowest id at which x is largest, int32 `[..., 1]`."""
        ids = jnp.broadcast_to(self.ids(x), x.shape)
        return -self.max(jnp.where(x == self.max(x), -ids, jnp.iinfo(jnp.int32).min))


WHOLE = Vocab()
