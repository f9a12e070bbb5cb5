"""From a block and a kernel to tokens: `verify` samples and `law` enumerates the same judgement."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from speccascade.kernels.interface import Block, Judgement, Kernel
from speccascade.sampling import draw
from speccascade.verify import Uniforms, Verdict
from speccascade.vocab import WHOLE, Vocab, flushed, positive

Knobs = Mapping[str, Any]


def begin(kernel: Kernel, knobs: Knobs, prompt: jax.Array, length: jax.Array) -> jax.Array:
    """Returns the number that rows begin with, float32 [B].

    Args:
      kernel: the kernel.
      knobs: each `[]` or `[B, 1]`.
      prompt: int32 [B, T], right-padded.
      length: int32 [B], each prompt's own.
    """
    if kernel.begins is None:
        return jnp.zeros(length.shape, jnp.float32)
    return kernel.begins(prompt, length, knobs).astype(jnp.float32)


def verify(
    kernel: Kernel,
    knobs: Knobs,
    block: Block,
    carry: jax.Array,
    uniforms: Uniforms,
    vocab: Vocab = WHOLE,
) -> tuple[Verdict, jax.Array]:
    """Decides how much of a drafted block to keep and draws the token after it.

    Args:
      kernel: the kernel.
      knobs: each `[]` or `[B, 1]`.
      block: the drafted block.
      carry: float32 [B], the rows' numbers before it.
      uniforms: the randomness.
      vocab: how to reduce over V.

    Returns:
      The verdict, and the rows' numbers after it.
    """
    verdict, numbers = tested(kernel, knobs, block, carry, uniforms, vocab)
    return verdict, read(kernel, numbers, verdict.next_token, knobs)


def tested(
    kernel: Kernel, knobs: Knobs, block: Block, carry: jax.Array, uniforms: Uniforms, vocab: Vocab
) -> tuple[Verdict, jax.Array]:
    """Returns what `verify` does, with the numbers before the verdict's token is read."""
    block = _flushed(block)
    judged = _judged(kernel, knobs, block, carry, vocab)
    kept = _kept(kernel, uniforms.accept < judged.chance, block, knobs, vocab)
    count = jnp.sum(jnp.cumprod(kept.astype(jnp.int32), axis=1), axis=1).astype(jnp.int32)
    weights = _at(_after(judged, block, vocab), count)
    return Verdict(count, draw(weights, uniforms.token, vocab)), _at(judged.carry, count)


def law(
    kernel: Kernel, knobs: Knobs, block: Block, carry: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the exact law of what `verify` samples, for given drafts.

    Returns:
      accepted: [B, N + 1], the probability that exactly i draft tokens are kept.
      next_token: [B, N + 1, V], the distribution of the token after i kept ones.
      carry: [B, N + 1, V], the row's number after both.
    """
    block = _flushed(block)
    judged = _judged(kernel, knobs, block, carry, WHOLE)
    size, vocab = block.draft.shape[1], block.p.shape[-1]
    accepted = jnp.zeros((len(block.draft), size + 1), judged.chance.dtype)
    for tests in itertools.product((False, True), repeat=size):
        passed = jnp.broadcast_to(jnp.array(tests, bool), block.draft.shape)
        weight = jnp.prod(jnp.where(passed, judged.chance, 1 - judged.chance), axis=1)
        kept = _kept(kernel, passed, block, knobs, WHOLE)
        count = jnp.sum(jnp.cumprod(kept.astype(jnp.int32), axis=1), axis=1)
        accepted += weight[:, None] * (jnp.arange(size + 1) == count[:, None])
    after = _after(judged, block, WHOLE)
    numbers = [
        read(kernel, judged.carry, jnp.full(judged.carry.shape, token, jnp.int32), knobs)
        for token in range(vocab)
    ]
    return accepted, after / after.sum(-1, keepdims=True), jnp.stack(numbers, axis=-1)


def _flushed(block: Block) -> Block:
    return block._replace(q=flushed(block.q), p=flushed(block.p), p1=flushed(block.p1))


def _judged(kernel: Kernel, knobs, block: Block, carry, vocab) -> Judgement:
    judged = kernel.judge(block, carry, knobs, vocab)
    size = block.draft.shape[1]
    numbers = judged.carry
    if numbers is None:
        numbers = jnp.broadcast_to(carry[:, None], (len(carry), size + 1))
    return judged._replace(chance=jnp.where(block.drafted, judged.chance, 0.0), carry=numbers)


def _kept(kernel: Kernel, passed, block: Block, knobs, vocab) -> jax.Array:
    passed = passed & block.drafted
    if kernel.keeps is None:
        return passed
    return kernel.keeps(passed, block, knobs, vocab) & block.drafted


def _after(judged: Judgement, block: Block, vocab) -> jax.Array:
    """Returns the unnormalised law of the token after i kept ones, `[B, N + 1, V]`."""
    replacement = jnp.pad(judged.replacement, ((0, 0), (0, 1), (0, 0)))
    is_end = jnp.arange(replacement.shape[1]) == block.length[:, None]
    use_bonus = is_end[..., None] | ~positive(vocab.sum(replacement))
    return jnp.where(use_bonus, judged.bonus, replacement)


def read(kernel: Kernel, carry, token, knobs: Knobs) -> jax.Array:
    """Returns the numbers after a token that no kernel tested, in the shape of `carry`."""
    return carry if kernel.reads is None else kernel.reads(carry, token, knobs)


def _at(x: jax.Array, index: jax.Array) -> jax.Array:
    index = index.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.take_along_axis(x, index, axis=1)[:, 0]
