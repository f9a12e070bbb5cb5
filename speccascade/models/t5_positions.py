"""What T5 adds to attention scores: a learned bias by head and distance, and what is not seen."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speccascade.models.attention import UNSEEN, Bias, causal
from speccascade.models.t5_config import T5Config


@functools.cache
def bucket_table(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance in one direction, int32 [max_distance + 1].

    Half of the buckets are for one distance each, the others for ranges that grow with it. Farther
    distances than `max_distance` share its bucket. Rounding is that of float32, as trained.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)
    far = np.minimum(exact + ratio.astype(np.int32), num_buckets - 1)
    return np.where(distance < exact, distance, far).astype(np.int32)


class RelativePositions(nn.Module):
    """A learned bias of attention scores by head and distance, which all layers share.

    Attributes:
      config: the model's.
      bidirectional: whether keys behind their query have buckets of their own; else none is seen.
    """

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(self):
        """Returns the bias by how far a query is ahead of its key, float32 `[K, D]`.

        Distances from 0 to `max_distance` or, where it is bidirectional, from its negative on.
        """
        c = self.config
        init = nn.initializers.normal(c.d_model**-0.5)
        shape = (c.num_buckets, c.num_heads)
        table = self.param("embedding", init, shape, c.param_dtype).astype(jnp.float32)
        if not self.bidirectional:
            return table[bucket_table(c.num_buckets, c.max_distance)].T
        half = c.num_buckets // 2
        buckets = bucket_table(half, c.max_distance)
        return table[np.concatenate([half + buckets[:0:-1], buckets])].T


def prompt_bias(by_distance_KD: jax.Array, length_B: jax.Array, size: int) -> Bias:
    """Returns the bias among the tokens of padded prompts `[B, size]`, all of which are seen."""
    # By slot for the last query; each one before it reads the same from one entry further on.
    last = by_distance_KD.shape[1] // 2
    ahead = np.clip(size - 1 - np.arange(2 * size - 1), -last, last)
    by_slot = by_distance_KD[:, ahead + last]

    def bias(query_BS, slot_BL):
        def row(at):
            return jax.lax.dynamic_slice_in_dim(by_slot, size - 1 - at, size, axis=1)

        near = jax.vmap(row, out_axes=1)(query_BS[0])
        return jnp.where(slot_BL[:, None, None] < length_B[:, None, None, None], near, UNSEEN)

    return bias


def answer_bias(by_distance_KD: jax.Array) -> Bias:
    """Returns the bias of tokens that see what is before them."""

    def bias(query_BS, slot_BL):
        ahead_BSL = query_BS[:, :, None] - slot_BL[:, None, :]
        near = by_distance_KD[:, jnp.clip(ahead_BSL, 0, by_distance_KD.shape[1] - 1)]
        return causal(query_BS, slot_BL) + jnp.moveaxis(near, 0, 1)

    return bias


def cross_bias(length_B: jax.Array) -> Bias:
    """Returns the bias of tokens that see padded prompts as they are."""

    def bias(query_BS, slot_BL):
        del query_BS
        seen = slot_BL[:, None, None] < length_B[:, None, None, None]
        return jnp.where(seen, 0.0, UNSEEN)

    return bias
