"""What the engine knows of an acceptance kernel: a lossy mode that is no target of q and p.

What such a mode keeps depends on the drafted token, on the block or on what a request has spent, so
no pi says what it samples. A kernel instead maps a block to the chance of each acceptance and the
laws of the token that follows; `verify.py` samples from those and enumerates them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from speccascade.knobs import Knob
from speccascade.vocab import Vocab

VERIFIER = "kernel"
"""What a `Decoder`'s verifier is called whose rows follow kernels."""


class Block(NamedTuple):
    """A drafted block as a kernel sees it.

    Attributes:
      draft: int32 [B, N], the drafted tokens.
      length: int32 [B] in 0..N, tokens really drafted.
      q: float32 [B, N, V], the distributions that they were sampled from.
      p: float32 [B, N + 1, V], the expert as sampled from, at their positions and the one after.
      p1: float32 [B, N + 1, V], the expert at temperature 1, untruncated.
    """

    draft: jax.Array
    length: jax.Array
    q: jax.Array
    p: jax.Array
    p1: jax.Array

    @property
    def drafted(self) -> jax.Array:
        """Which positions hold a drafted token, bool [B, N]."""
        return jnp.arange(self.draft.shape[1]) < self.length[:, None]


class Judgement(NamedTuple):
    """What a kernel makes of a block.

    Attributes:
      chance: float32 [B, N], the probability that each draft token passes its own test; the tests
        are independent, and a token is kept with those before it.
      replacement: float32 [B, N, V], unnormalised, the law of the token that takes the place of the
        first one that is not kept; where it is empty, `bonus` is.
      bonus: float32 [B, N + 1, V], unnormalised, the law of the token behind a block that is kept.
      carry: float32 [B, N + 1], the row's number after i kept tokens; None where it has none.
    """

    chance: jax.Array
    replacement: jax.Array
    bonus: jax.Array
    carry: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A row of the registry beside those of rules; its knobs come as `[]` or `[B, 1]`.

    Attributes:
      judge: `(block, carry, knobs, vocab) -> Judgement`; carry is the row's number, float32 [B].
      equation: where the kernel is defined.
      knobs: its parameters.
      expert_at: knobs at which every token is of the expert's law; None where there are none.
      keeps: `(passed, block, knobs, vocab) -> bool [B, N]`, which tokens are kept, where that is
        not those that passed, bool [B, N].
      begins: `(prompt, length, knobs) -> float32 [B]`, the number that a row begins with; 0 where
        not given.
      reads: `(carry, token, knobs) -> carry`, the number after the token behind the kept ones.
      has_twin: `(knobs, size) -> bool`, whether a draft token's test asks for nothing of its block,
        of N = size tokens, but its place and the number, see `twin.py`; size is None where blocks
        never end.
    """

    judge: Callable
    equation: str
    knobs: Mapping[str, Knob] = dataclasses.field(default_factory=dict)
    expert_at: Mapping[str, float] | None = None
    keeps: Callable | None = None
    begins: Callable | None = None
    reads: Callable | None = None
    has_twin: Callable[[Mapping[str, float], int | None], bool] = lambda knobs, size: True

    # What the rows of rules say and no kernel has: a target, a drafter's end, a use of q at the
    # bonus position or of q1, drafts that end early, a decision before the expert's.
    target = None
    drafter_at = None
    uses_q = False
    reads_q1 = False
    ends_draft = None
    sequential = False


# ---- what kernels are made of ----


def at_draft(probs: jax.Array, block: Block, vocab: Vocab) -> jax.Array:
    """Returns each draft token's entry of `[B, N or N + 1, V]`, `[B, N]`."""
    return vocab.at(probs[:, : block.draft.shape[1]], block.draft)


def is_draft(block: Block, vocab: Vocab) -> jax.Array:
    """Returns bool [B, N, V], true at each draft token."""
    return vocab.ids(block.q) == block.draft[..., None]


def without_draft(block: Block, vocab: Vocab) -> jax.Array:
    """Returns p without the draft tokens, `[B, N, V]`, unnormalised."""
    return jnp.where(is_draft(block, vocab), 0.0, block.p[:, : block.draft.shape[1]])


def best(probs: jax.Array, vocab: Vocab) -> jax.Array:
    """Returns all mass on the first of the largest entries, in the shape of `probs`."""
    return (vocab.ids(probs) == vocab.first_argmax(probs)).astype(probs.dtype)
