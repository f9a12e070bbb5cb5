"""Reductions over the vocabulary axis, whole or sharded over a mesh axis.

Rules, distributions and verification reduce over the vocabulary only through a `Vocab`, so one code
serves arrays that hold all of `V` and, under `jax.shard_map`, arrays that hold a shard of it. What
crosses devices is one number per row or position, never an axis of the vocabulary.
"""

import dataclasses
from collections.abc import Callable

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
        return self._first(x.shape[-1]) + jnp.arange(x.shape[-1], dtype=jnp.int32)

    def first_argmax(self, x: jax.Array) -> jax.Array:
        """Returns the lowest id at which x is largest, int32 `[..., 1]`."""
        ids = jnp.broadcast_to(self.ids(x), x.shape)
        return -self.max(jnp.where(x == self.max(x), -ids, jnp.iinfo(jnp.int32).min))

    def at(self, x: jax.Array, ids: jax.Array) -> jax.Array:
        """Returns x at one id each, `[...]`, for ids `[...]`."""
        if self.axis_name is None:
            return jnp.take_along_axis(x, ids[..., None], axis=-1)[..., 0]
        own, local = self._own(ids, x.shape[-1])
        found = jnp.take_along_axis(x, local[..., None], axis=-1)[..., 0]
        return jax.lax.psum(jnp.where(own, found, 0), self.axis_name)

    def rows(self, table: jax.Array, ids: jax.Array) -> jax.Array:
        """Returns `table[ids]`, `[..., D]`, of a table `[V, D]`."""
        if self.axis_name is None:
            return table[ids]
        own, local = self._own(ids, table.shape[0])
        return jax.lax.psum(jnp.where(own[..., None], table[local], 0), self.axis_name)

    def totals(self, x: jax.Array) -> jax.Array:
        """Returns every shard's x `[...]` on all of them, `[..., shards]`; needs a mesh axis."""
        shard = jnp.arange(jax.lax.axis_size(self.axis_name)) == self.shard()
        return jax.lax.psum(jnp.where(shard, x[..., None], 0), self.axis_name)

    def shard(self) -> jax.Array:
        """Returns which shard this device holds, int32 `[]`; needs a mesh axis."""
        return jax.lax.axis_index(self.axis_name)

    def from_shard(self, shard: jax.Array, ids: jax.Array, size: int) -> jax.Array:
        """Returns the token ids that some shards chose, int32 `[...]`; needs a mesh axis.

        Args:
          shard: int32 `[...]`, whose choice counts.
          ids: int32 `[...]`, this shard's choices, each in `0..size - 1`.
          size: ids of a shard.
        """
        chosen = jnp.where(shard == self.shard(), self._first(size) + ids, 0)
        return jax.lax.psum(chosen, self.axis_name)

    def _first(self, size: int) -> jax.Array | int:
        return 0 if self.axis_name is None else self.shard() * size

    def _own(self, ids, size):
        """Returns which ids this shard holds, and their indices in it (0 for those of others)."""
        local = ids - self._first(size)
        own = (local >= 0) & (local < size)
        return own, jnp.where(own, local, 0)


WHOLE = Vocab()


# ---- quantities of distributions ----


def positive(x: jax.Array) -> jax.Array:
    """Returns whether x is above 0 in every arithmetic.

    Most devices take subnormal numbers for 0, in some of their operations or all: what `> 0` lets
    pass may be 0 to the logarithm, or under the fraction, that it was to guard.
    """
    return x >= jnp.finfo(x.dtype).tiny


def flushed(x: jax.Array) -> jax.Array:
    """Returns non-negative x, of JAX or NumPy, with subnormal numbers as 0."""
    x = jnp.asarray(x)
    return jnp.where(positive(x), x, jnp.zeros((), x.dtype))


def total_variation(q: jax.Array, p: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns `TV(q, p) = sum_v max(0, q(v) - p(v))`, `[..., 1]`."""
    return vocab.sum(jnp.maximum(q - p, 0.0))


def entropy(p: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns the Shannon entropy in nats, `[..., 1]`."""
    p = jnp.asarray(p)
    own = positive(p)
    return -vocab.sum(jnp.where(own, p * jnp.log(jnp.where(own, p, 1.0)), 0.0))


def largest_edge(holds: Callable[[jax.Array], jax.Array], start: jax.Array) -> jax.Array:
    """Returns the largest t in [0, 1] at which the decreasing `holds(t)` is true.

    Bisects the bit patterns, which order non-negative floats: 30 streaming passes for float32,
    exact.

    Args:
      holds: from thresholds to bool, both of the shape of `start`; true at 0.
      start: float32 or float64 of that shape; its values are not read.
    """
    bits = {4: jnp.int32, 8: jnp.int64}[start.dtype.itemsize]
    one = jax.lax.bitcast_convert_type(jnp.ones((), start.dtype), bits)
    low = jnp.zeros_like(start, bits)  # t = 0 always holds
    high = jnp.full_like(low, one + 1)  # the float after 1 never does

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        ok = holds(jax.lax.bitcast_convert_type(middle, start.dtype))
        return jnp.where(ok, middle, low), jnp.where(ok, high, middle)

    low, _ = jax.lax.fori_loop(0, 30 if bits == jnp.int32 else 62, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, start.dtype)
