"""From logits to the distributions that tokens are sampled from, and from those to tokens.

Drafter and expert both go through `distribution`, so the q of the acceptance ratio is the q that
was sampled. Nothing here sorts the vocabulary: a sort of 49k entries costs more than the model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from speccascade.vocab import WHOLE, Vocab, largest_edge


class Truncation(NamedTuple):
    """Limits on what may be sampled; a field that is None costs nothing.

    Applied after the temperature: top-k first, then top-p and min-p of what is left. Tokens tied
    with the last one kept are kept.

    Attributes:
      top_k: int32 [B], keep the k most probable tokens; at least 1.
      top_p: float32 [B], keep the fewest most probable tokens of at least this mass; in (0, 1].
      min_p: float32 [B], keep tokens of at least this share of the largest probability; in [0, 1].
    """

    top_k: jax.Array | None = None
    top_p: jax.Array | None = None
    min_p: jax.Array | None = None


def confidence(logits: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns the distribution at temperature 1, untruncated: float32 `[..., V]`."""
    logits = logits.astype(jnp.float32)
    weights = jnp.exp(logits - vocab.max(logits))
    return weights / vocab.sum(weights)


def distribution(
    logits: jax.Array,
    temperature: jax.Array,
    truncation: Truncation | None = None,
    vocab: Vocab = WHOLE,
) -> jax.Array:
    """Returns the distribution that tokens are sampled from.

    Args:
      logits: `[B, ..., V]` of any float dtype.
      temperature: float32 [B]; 0 is greedy, a one-hot on the first of the largest logits.
      truncation: limits per row, or None.
      vocab: how to reduce over V.

    Returns:
      float32 `[B, ..., V]`.
    """
    logits = logits.astype(jnp.float32)
    lift = _lifter(logits.ndim)
    temperature = lift(temperature)
    greedy = temperature <= 0
    # Less their largest first: a low temperature then neither magnifies rounding nor overflows.
    weights = jnp.exp((logits - vocab.max(logits)) / jnp.where(greedy, 1.0, temperature))
    warm = weights / vocab.sum(weights)
    if truncation is not None:
        warm = _truncate(warm, truncation, lift, vocab)
    one_hot = (vocab.ids(logits) == vocab.first_argmax(logits)).astype(jnp.float32)
    return jnp.where(greedy, one_hot, warm)


def _lifter(ndim: int):
    """Returns a function that gives a `[B]` array trailing axes, up to `ndim` in all."""
    return lambda x: jnp.reshape(x, (-1,) + (1,) * (ndim - 1))


def _truncate(probs, truncation: Truncation, lift, vocab: Vocab):
    largest = vocab.max(probs)  # where nothing reads more than its shape, it is not computed
    if truncation.top_k is not None:
        k = lift(truncation.top_k)
        edge = largest_edge(lambda t: vocab.sum((probs >= t).astype(jnp.int32)) >= k, largest)
        probs = jnp.where(probs >= edge, probs, 0.0)
        probs = probs / vocab.sum(probs)
    keep = jnp.ones_like(probs, bool)
    if truncation.top_p is not None:
        mass = lift(truncation.top_p)
        edge = largest_edge(lambda t: vocab.sum(jnp.where(probs >= t, probs, 0.0)) >= mass, largest)
        keep &= (probs >= edge) | (mass >= 1)  # a sum can round to one before the last token
    if truncation.min_p is not None:
        keep &= probs >= lift(truncation.min_p) * vocab.max(probs)
    kept = jnp.where(keep, probs, 0.0)
    return kept / vocab.sum(kept)


def draw(weights: jax.Array, uniform: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Draws one id per row by inverting the cumulative sum in two levels, in three where sharded.

    Args:
      weights: `[..., V]`, non-negative, not all zero; need not sum to one.
      uniform: `[...]` in [0, 1).
      vocab: how V lies; of a shard only its total is shown to the others.

    Returns:
      int32 `[...]`, never an id of zero weight.
    """
    size = weights.shape[-1]
    width = 1 << ((size - 1).bit_length() + 1) // 2  # about the square root of V
    pad = [(0, 0)] * (weights.ndim - 1) + [(0, -size % width)]
    chunks = jnp.pad(weights, pad).reshape(*weights.shape[:-1], -1, width)
    sums = chunks.sum(-1)
    total = sums.sum(-1)
    if vocab.axis_name is None:
        at = uniform * total
    else:
        totals = vocab.totals(total)
        at = uniform * totals.sum(-1)
        shard, before = _invert(totals, at)
        at = at - before
    chunk, before = _invert(sums, at)
    inside = jnp.take_along_axis(chunks, chunk[..., None, None], axis=-2)[..., 0, :]
    offset, _ = _invert(inside, at - before)
    index = chunk * width + offset
    return index if vocab.axis_name is None else vocab.from_shard(shard, index, size)


def _invert(weights, at):
    """Returns the first index whose cumulative weight exceeds `at`, and the weight before it.

    Rounding may leave no such index, or one of zero weight: only positive entries count, and the
    last of them catches the rest.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    index = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    positive = weights > 0
    last = jnp.max(jnp.where(positive, index, 0), axis=-1)
    hit = positive & (cumulative > at[..., None])
    first = jnp.min(jnp.where(hit, index, last[..., None]), axis=-1)
    before = jnp.take_along_axis(cumulative - weights, first[..., None], axis=-1)[..., 0]
    return first, before
