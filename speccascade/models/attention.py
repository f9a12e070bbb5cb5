"""Attention over what is kept of the tokens read, which all models share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from speccascade.models.kv_cache import Slots

UNSEEN = -1e30
"""Added to the scores of what a query does not see."""

CHUNK = 512
"""Tokens of a known text whose scores are made at once, at most: they bound what it takes in
memory."""

Bias = Callable[[jax.Array, jax.Array], jax.Array]
"""Maps positions of queries [B, S] and of slots [B, L] (either B may be 1) to what is added to
their scores, float32 `[B, K, S, L]` (B and K may be 1): `UNSEEN` or, where it is seen, what the
model makes of the distance."""


def squash(x: jax.Array, cap: float | None) -> jax.Array:
    """Squashes to within +-cap; None leaves x as it is."""
    return x if cap is None else jnp.tanh(x / cap) * cap


def causal(positions_BS: jax.Array, slot_BL: jax.Array, window: int | None = None) -> jax.Array:
    """Lets a query see itself and what is before it, of a window the last ones; see `Bias`."""
    distance_BSL = positions_BS[:, :, None] - slot_BL[:, None, :]
    seen_BSL = distance_BSL >= 0
    if window is not None:
        seen_BSL &= distance_BSL < window
    return jnp.where(seen_BSL, 0.0, UNSEEN)[:, None]


def shared(bias: Bias, positions_BS: jax.Array, slot_BL: jax.Array, chunk: int) -> Bias:
    """Returns a bias for many layers: made once, unless chunks of queries each need their own."""
    if positions_BS.shape[1] > chunk:
        return bias
    made = bias(positions_BS, slot_BL)
    return lambda *_: made


def attend(
    query_BSQH: jax.Array,
    positions_BS: jax.Array,
    seen: Slots,
    bias: Bias,
    *,
    chunk: int = CHUNK,
    scale: float = 1.0,
    cap: float | None = None,
) -> jax.Array:
    """Mixes values by the softmax of their scores; heads share keys and values in groups.

    Args:
      query_BSQH: queries; Q is a multiple of K.
      positions_BS: int32, where they stand; B may be 1.
      seen: what they look at.
      bias: says what each query sees.
      chunk: of more queries than this, scores are made chunk by chunk; their float32
        `[B, Q, chunk, L]` bounds the memory.
      scale: scores are multiplied by it.
      cap: then they are squashed to within +-cap; None for not at all.

    Returns:
      `[B, S, Q * H]` in the queries' dtype.
    """
    batch, size = query_BSQH.shape[:2]
    if size <= chunk:
        return _attend(query_BSQH, positions_BS, seen, bias, scale, cap)
    chunks = -(-size // chunk)
    width = -(-size // chunks)

    def cut(x):  # what is padded up to whole chunks is computed and dropped
        padded = [(0, 0), (0, chunks * width - size)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, padded).reshape(x.shape[0], chunks, width, *x.shape[2:])
        return x.swapaxes(0, 1)

    def one(part):
        query, positions = part
        return _attend(query, positions, seen, bias, scale, cap)

    mixed = jax.lax.map(one, (cut(query_BSQH), cut(positions_BS)))
    return mixed.swapaxes(0, 1).reshape(batch, chunks * width, -1)[:, :size]


def _attend(query_BSQH, positions_BS, seen: Slots, bias: Bias, scale, cap):
    batch, size, heads, width = query_BSQH.shape
    kv_heads = seen.keys_BKLH.shape[1]
    groups = heads // kv_heads
    query = query_BSQH.reshape(batch, size, kv_heads, groups, width).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum(
        "bkgsh,bklh->bkgsl", query, seen.keys_BKLH, preferred_element_type=jnp.float32
    )
    scores = squash(scores * scale, cap) + bias(positions_BS, seen.position_BL)[:, :, None]
    weights = jax.nn.softmax(scores, axis=-1).astype(seen.values_BKLH.dtype)
    mixed = jnp.einsum(
        "bkgsl,bklh->bkgsh", weights, seen.values_BKLH, preferred_element_type=jnp.float32
    )
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, size, -1).astype(query_BSQH.dtype)
