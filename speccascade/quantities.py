"""Quantities of distributions that rules, and the head of the learned rule, are made of."""

import jax
import jax.numpy as jnp

from speccascade.vocab import WHOLE, Vocab


def total_variation(q: jax.Array, p: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns `TV(q, p) = sum_v max(0, q(v) - p(v))`, `[..., 1]`."""
    return vocab.sum(jnp.maximum(q - p, 0.0))


def entropy(p: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns the Shannon entropy in nats, `[..., 1]`."""
    return -vocab.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0))
