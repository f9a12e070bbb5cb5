"""What decoding computes, by counting: multiply-adds of matrix products per generated token.

Every position that a model scored counts, whether its token was kept or not: rejected drafts, what
stands behind them in the block, and the bonus position. Left out are the prompts, which are read
once, attention's products with the cache, and the softmax over the vocabulary. It is what the rows'
own blocks need: a row that waits for its neighbours in a batch computes nothing here.
"""

import math
from collections.abc import Mapping

from speccascade import rules
from speccascade.decode.sequential import CATCH_UP
from speccascade.evaluate.settings import Setting
from speccascade.models.interface import Model, Params
from speccascade.pairs import Pair
from speccascade.plan.costs import read_by_step
from speccascade.plan.memory import is_product


def scored(setting: Setting, counts: Mapping[str, float]) -> dict[str, float]:
    """Returns the positions that each model scored after the prefill, by role.

    Args:
      setting: how it was decoded.
      counts: of the models' passes, see `decode.Stats.by_name`; a model without any may lack.
    """
    drafter, expert = counts.get("drafter_calls", 0.0), counts["expert_calls"]
    if setting.method == "token_cascade":
        return {"drafter": drafter, "expert": expert * CATCH_UP}
    if setting.method != "speculative":
        return {"drafter": drafter, "expert": expert}
    # A pass scores a whole block, however much of it was drafted or kept. Where nothing is drafted
    # at the bonus position, the first pass of the next block reads two tokens.
    block = expert * (setting.draft_length + 1)
    reads_two = not rules.spec(setting.rule).uses_q
    if setting.drafter is not None:
        return {"expert": block}
    if setting.middle_rule is None:
        return {"drafter": drafter + expert * reads_two, "expert": block}
    rounds = counts["middle_calls"]
    small_reads_two = reads_two or not rules.spec(setting.middle_rule).uses_q
    return {
        "drafter": drafter + rounds * small_reads_two,
        "middle": rounds * (setting.middle_draft_length + 1 + reads_two),
        "expert": block,
    }


def multiply_adds(model: Model, params: Params) -> int:
    """Returns the multiply-adds of one position: the entries of all matrices that it goes through.

    Of an embedding only a row is read, unless it is the output head too.
    """
    products = (leaf for key, leaf in read_by_step(model, params) if is_product(key, leaf))
    return sum(math.prod(leaf.shape) for leaf in products)


def per_token(pair: Pair, setting: Setting, counts: Mapping[str, float]) -> float | None:
    """Returns the multiply-adds of all models per generated token, None where there is none.

    Args:
      pair: the models.
      setting: how they decoded.
      counts: of `decode.Stats.by_name`, summed over examples.
    """
    if not counts["emitted"] > 0:
        return None
    total = sum(
        count * multiply_adds(getattr(pair, role), pair.params[role])
        for role, count in scored(setting, counts).items()
        if count > 0  # an expert alone has no drafter to weigh
    )
    return total / counts["emitted"]
