"""FLy: a mismatch is kept where the drafts behind it match again.

Li et al. 2025, arXiv 2511.22972, as in fly/models/FLy.py of AMD-AGI/FLy, without its tree. A draft
token *matches* where it is one of two tokens drawn from p (of one at temperature 0, where it must
be the expert's). A mismatch at position i of a block of L is kept all the same where

  * the window - 1 tokens behind it match, and i < L - window: near its end a block is strict;
  * the entropy of the three likeliest tokens, `-sum p1 log p1` without normalising, is at least
    theta; a theta up to 0.01 asks nothing.

A rejected token gives way to the first of the two drawn, so to p without it; behind a whole block
stands a token of p. What is kept hangs on later drafts: there is no law of the next token alone.
"""

from typing import Any

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, without_draft
from speccascade.knobs import Knob
from speccascade.vocab import positive


def _judge(block, carry, knobs, vocab):
    missed = 1 - at_draft(block.p, block, vocab)
    return Judgement(1 - missed * missed, without_draft(block, vocab), block.p)


def _entropy_of_three(p1, vocab):
    total: Any = 0.0
    for _ in range(3):
        top = vocab.max(p1)
        some = positive(top)
        total = total - jnp.where(some, top * jnp.log(jnp.where(some, top, 1.0)), 0.0)
        p1 = jnp.where(vocab.ids(p1) == vocab.first_argmax(p1), 0.0, p1)
    return total[..., 0]


def _keeps(passed, block, knobs, vocab):
    size, window = block.draft.shape[1], knobs["window"]
    entropy = _entropy_of_three(block.p1[:, :size], vocab)
    free = (entropy >= knobs["theta"]) | (knobs["theta"] <= 0.01)
    early = jnp.arange(size) < block.length[:, None] - window
    ahead = jnp.ones_like(passed)
    for step in range(1, min(window, size)):
        ahead &= jnp.pad(passed, ((0, 0), (0, step)))[:, step:]
    return passed | (ahead & early & free)


FLY = Kernel(
    _judge,
    "Li et al. 2025, as in FLy's code",
    {"theta": Knob(0, default=0.3), "window": Knob(1, default=6, static=True)},
    keeps=_keeps,
    # Such a window relaxes nothing: no later draft is asked for.
    has_twin=lambda knobs, size: size is not None and knobs["window"] >= size,
)
