"""Quantities of distributions that rules, and the head of the learned rule, are made of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from speccascade.vocab import WHOLE, Vocab


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
