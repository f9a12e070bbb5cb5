"""The lossless verifier: from a drafted block and a target to tokens of exactly the target's law.

Two methods with the same law, whatever the target pi is:

  token  decides position by position (Leviathan et al. 2023); the rejection probability at a tested
         position is TV(pi, q), the least that any such verifier can have.
  block  decides on the whole block (Sun et al. 2025, "Block Verification Accelerates Speculative
         Decoding"); keeps more tokens per block.

`verify` samples and `law` enumerates; both are made of `_block`, `_block_scores` and `_after`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from speccascade.errors import UserError
from speccascade.sampling import draw
from speccascade.vocab import WHOLE, Vocab, flushed, positive

METHODS = ("token", "block")


class Verdict(NamedTuple):
    """The verifier's decision.

    Attributes:
      num_accepted: int32 [B], draft tokens kept.
      next_token: int32 [B], the token after them.
    """

    num_accepted: jax.Array
    next_token: jax.Array


class Uniforms(NamedTuple):
    """The randomness of one verification, in [0, 1).

    Attributes:
      accept: float32 [B, N], one per draft token.
      token: float32 [B], for the token after the accepted prefix.
    """

    accept: jax.Array
    token: jax.Array


class _Block(NamedTuple):
    """A drafted block in the form that both methods decide on.

    Attributes:
      q_at: [B, N], q of each draft token, 1 where none was drafted.
      pi_at: [B, N], pi of each draft token, 0 where none was drafted.
      weight: [B, N + 1], w_i, the share of pi still due after i accepted tokens (1 for `token`).
      length: int32 [B], tokens drafted.
    """

    q_at: jax.Array
    pi_at: jax.Array
    weight: jax.Array
    length: jax.Array


def _block(draft, q, pi, length, method, vocab=WHOLE) -> _Block:
    batch, size = draft.shape
    if method not in METHODS:
        raise UserError(f"verifier {method!r} is unknown; choose one of: {', '.join(METHODS)}")
    length = jnp.full((batch,), size, jnp.int32) if length is None else length
    drafted = jnp.arange(size) < length[:, None]
    q_at = jnp.where(drafted, vocab.at(q, draft), 1.0)
    pi_at = jnp.where(drafted, vocab.at(pi[:, :size], draft), 0.0)
    weight = jnp.ones((batch, size + 1), pi.dtype)
    if method == "block":
        # w_i = min(1, w_{i-1} pi / q) is, in logarithms, a sum held down at zero: the running sum
        # less its running maximum. A token without target mass ends the block, -inf from there on.
        # A draft that q cannot have made is kept wherever pi allows it, as if q were least.
        least = jnp.finfo(q_at.dtype).tiny
        steps = jnp.log(pi_at) - jnp.log(jnp.maximum(q_at, least))
        sums = jnp.cumsum(jnp.pad(steps, ((0, 0), (1, 0))), axis=1)
        weight = jnp.exp(sums - jax.lax.cummax(sums, axis=1))
    return _Block(q_at, pi_at, weight, length)


def _after(q_i, pi_i, weight_i, is_end, vocab=WHOLE) -> jax.Array:
    """The unnormalised law of the token after i accepted ones, `[..., V]`.

    Args:
      q_i: `[..., V]`, ignored at the end of the block.
      pi_i: `[..., V]`.
      weight_i: `[...]`.
      is_end: bool `[...]`, whether the whole block was accepted.
      vocab: how to reduce over V.
    """
    residual = jnp.maximum(weight_i[..., None] * pi_i - q_i, 0.0)
    # An empty residual is never reached but by rounding, where pi equals q.
    empty = ~positive(vocab.sum(residual))
    return jnp.where(is_end[..., None] | empty, pi_i, residual)


def _block_scores(block: _Block, q, pi, vocab=WHOLE) -> jax.Array:
    """h_1..h_N of block verification, [B, N]: the chance to stop at i if no later i is kept."""
    size = q.shape[1]
    inner = block.weight[:, 1:size, None] * pi[:, 1:size] - q[:, 1:]
    surplus = vocab.sum(jnp.maximum(inner, 0.0))[..., 0]  # s_i for i = 1..N-1
    total = surplus + (1 - block.weight[:, 1:size])  # the difference first: it is exact near 1
    inner = jnp.where(positive(total), surplus / jnp.where(positive(total), total, 1.0), 0.0)
    scores = jnp.pad(inner, ((0, 0), (0, 1)))
    at = jnp.arange(1, size + 1)
    scores = jnp.where(at == block.length[:, None], block.weight[:, 1:], scores)
    return jnp.where(at <= block.length[:, None], scores, 0.0)


def verify(
    key: jax.Array | None,
    draft: jax.Array,
    q: jax.Array,
    pi: jax.Array,
    *,
    length: jax.Array | None = None,
    method: str = "token",
    uniforms: Uniforms | None = None,
    vocab: Vocab = WHOLE,
) -> Verdict:
    """Decides how much of a drafted block to keep and draws the token after it.

    Every emitted token is distributed exactly as pi given what precedes it, for any drafter.

    Args:
      key: a random key; not used where `uniforms` are given.
      draft: int32 [B, N], the drafted tokens.
      q: float32 [B, N, V], the distributions that they were sampled from.
      pi: float32 [B, N + 1, V], the target at each of their positions and at the one after.
      length: int32 [B] in 0..N, the tokens each row really drafted; None for N. The row's block
        ends there and its last token comes from `pi[length]`.
      method: "token" or "block".
      uniforms: the randomness, to inject it.
      vocab: how to reduce over V.

    Raises:
      UserError: the method is unknown, or there is neither a key nor uniforms.
    """
    batch, size = draft.shape
    q, pi = flushed(q), flushed(pi)
    if uniforms is None:
        if key is None:
            raise UserError("verify was given neither a key nor uniforms; give it one of them")
        accept_key, token_key = jax.random.split(key)
        uniforms = Uniforms(
            jax.random.uniform(accept_key, (batch, size)), jax.random.uniform(token_key, (batch,))
        )
    block = _block(draft, q, pi, length, method, vocab)
    if size == 0:
        return Verdict(block.length, draw(pi[:, 0], uniforms.token, vocab))
    if method == "token":
        # Strictly below: a token without target mass is not kept at u = 0 either.
        kept = uniforms.accept * block.q_at < block.pi_at
        num_accepted = jnp.sum(jnp.cumprod(kept.astype(jnp.int32), axis=1), axis=1)
    else:
        kept = uniforms.accept < _block_scores(block, q, pi, vocab)
        num_accepted = jnp.max(jnp.where(kept, jnp.arange(1, size + 1), 0), axis=1)
    num_accepted = num_accepted.astype(jnp.int32)

    def at(x, index):
        index = index.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.take_along_axis(x, index, axis=1)[:, 0]

    weights = _after(
        at(q, jnp.minimum(num_accepted, size - 1)),
        at(pi, num_accepted),
        at(block.weight, num_accepted),
        num_accepted == block.length,
        vocab,
    )
    return Verdict(num_accepted, draw(weights, uniforms.token, vocab))


def law(
    draft: jax.Array,
    q: jax.Array,
    pi: jax.Array,
    *,
    length: jax.Array | None = None,
    method: str = "token",
) -> tuple[jax.Array, jax.Array]:
    """Returns the exact law of what `verify` samples, for given drafts.

    Args:
      draft: int32 [B, N].
      q: [B, N, V].
      pi: [B, N + 1, V].
      length: int32 [B], or None for N.
      method: "token" or "block".

    Returns:
      accepted: [B, N + 1], the probability that exactly i draft tokens are kept.
      next_token: [B, N + 1, V], the distribution of the token after i kept ones.
    """
    batch, size = draft.shape
    q, pi = flushed(q), flushed(pi)
    block = _block(draft, q, pi, length, method)
    if size == 0:
        return jnp.ones((batch, 1), pi.dtype), pi
    if method == "token":
        known = positive(block.q_at)
        ratio = jnp.minimum(1.0, block.pi_at / jnp.where(known, block.q_at, 1.0))
        keep = jnp.where(known, ratio, jnp.where(block.pi_at > 0, 1.0, 0.0))
        reach = jnp.cumprod(jnp.pad(keep, ((0, 0), (1, 0)), constant_values=1.0), axis=1)
        accepted = reach * (1 - jnp.pad(keep, ((0, 0), (0, 1))))
    else:
        scores = jnp.pad(_block_scores(block, q, pi), ((0, 0), (1, 0)), constant_values=1.0)
        # Exactly i: kept at i and at no later one.
        later = jnp.cumprod((1 - scores)[:, ::-1], axis=1)[:, ::-1]
        accepted = scores * jnp.pad(later[:, 1:], ((0, 0), (0, 1)), constant_values=1.0)
    is_end = jnp.arange(size + 1) == block.length[:, None]
    q_padded = jnp.pad(q, ((0, 0), (0, 1), (0, 0)))
    after = _after(q_padded, pi, block.weight, is_end)
    return accepted, after / after.sum(-1, keepdims=True)
