"""Blocks of N drafted tokens over the positions of an answer: how many it takes to write it.

The text goes on as it was recorded. A block that begins at a position keeps its first token with
the chance 1 - TV(pi, q) that stands there, and so on; behind what it keeps the verifier's own
token follows, and then the next block begins. At temperature 0, on the rule's own answers, that is
what decoding did; else an estimate: other prefixes, and at a temperature above 0 what is kept
hangs on the token that is drawn, which is one alone in a recorded text.
"""

from typing import NamedTuple

import numpy as np


class Blocks(NamedTuple):
    """What is expected of an answer.

    Attributes:
      calls: how many blocks, each a pass of the expert.
      tested: drafted tokens that the verifier decides on.
      rejected: of these.
    """

    calls: float
    tested: float
    rejected: float


def expected(rejection: np.ndarray, ends: np.ndarray, draft_length: int) -> Blocks:
    """Returns what blocks over an answer's positions come to; calls grow with every rejection.

    Args:
      rejection: [A], the chance that a draft is rejected at a position that is reached.
      ends: bool [A], whether drafting ends before the position.
      draft_length: N.
    """
    calls = tested = rejected = 0.0
    # The chance that a position comes behind so many kept tokens of its block.
    at = np.zeros(draft_length + 1)
    begins = 1.0
    for chance, end in zip(rejection, ends, strict=True):
        at[0] = begins
        calls += begins
        drafted = at.copy()
        drafted[draft_length] = 0.0  # the verifier's own token stands behind a block
        if end:
            drafted[:] = 0.0
        kept = drafted * (1 - chance)
        tested += drafted.sum()
        rejected += drafted.sum() * chance
        begins = at.sum() - kept.sum()
        at[1:] = kept[:-1]
    return Blocks(calls, tested, rejected)
