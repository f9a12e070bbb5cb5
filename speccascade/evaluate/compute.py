"""What decoding computes, by counting: multiply-adds of matrix products per generated token.

Every position that a model scored counts, whether its token was kept or not: rejected drafts, what
stands behind them in the block, and the bonus position. Left out are the prompts, which are read
once, attention's products with the cache, and the softmax over the vocabulary. It is what the rows'
own blocks need: a row that waits for its neighbours in a batch computes nothing here.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from speccascade import rules
from speccascade.decode.sequential import CATCH_UP
from speccascade.evaluate.settings import Setting
from speccascade.models.interface import Model, Params
from speccascade.pairs import Pair
from speccascade.plan.costs import read_by_step
from speccascade.plan.memory import is_product


class Scored(NamedTuple):
    """Positions that each model scored after the prefill."""

    drafter: float
    expert: float


def scored(setting: Setting, counts: Mapping[str, float]) -> Scored | None:
    """Returns the positions that a setting's passes scored; None for a method not known here.

    Args:
      setting: how it was decoded.
      counts: `drafter_calls` and `expert_calls`, see `decode.Stats`.
    """
    drafter, expert = counts["drafter_calls"], counts["expert_calls"]
    if setting.method == "speculative":
        # An expert's pass scores a whole block, however much of it was drafted. Where the drafter
        # makes none at the bonus position, its first pass of a block reads two tokens.
        first = 0 if rules.spec(setting.rule).uses_q else expert
        return Scored(drafter + first, expert * (setting.draft_length + 1))
    if setting.method == "token_cascade":
        return Scored(drafter, expert * CATCH_UP)
    if setting.method in ("autoregressive_drafter", "autoregressive_expert", "sequence_cascade"):
        return Scored(drafter, expert)
    return None


def multiply_adds(model: Model, params: Params) -> int:
    """Returns the multiply-adds of one position: the entries of all matrices that it goes through.

    Of an embedding only a row is read, unless it is the output head too.
    """
    products = (leaf for key, leaf in read_by_step(model, params) if is_product(key, leaf))
    return sum(math.prod(leaf.shape) for leaf in products)


def per_token(pair: Pair, setting: Setting, counts: Mapping[str, float]) -> float | None:
    """Returns the multiply-adds of both models per generated token, None where there is no such.

    Args:
      pair: the models.
      setting: how they decoded.
      counts: the fields of `decode.Stats`, summed over examples.
    """
    found = scored(setting, counts)
    if found is None or not counts["emitted"] > 0:
        return None
    total = sum(
        count * multiply_adds(getattr(pair, role), pair.params[role])
        for role, count in found._asdict().items()
    )
    return total / counts["emitted"]
