"""What decoding computes, by counting: multiply-adds of matrix products per generated token.

Every position that a model scored counts, whether its token was kept or not: rejected drafts, what
stands behind them in the block, and the bonus position. Left out are the prompts, which are read
once, attention's products with the cache, and the softmax over the vocabulary. It is what the rows'
own blocks need: a row that waits for its neighbours in a batch computes nothing here.
"""

from collections.abc import Mapping

from speccascade.inference.setting import Setting
from speccascade.models.costs import entries, read_by_step
from speccascade.models.interface import Model, Params
from speccascade.models.memory import is_product
from speccascade.pairs import Pair


def multiply_adds(model: Model, params: Params) -> int:
    """Returns the multiply-adds of one position: the entries of all matrices that it goes through.

    Of an embedding only a row is read, unless it is the output head too.
    """
    products = ((key, leaf) for key, leaf in read_by_step(model, params) if is_product(key, leaf))
    return sum(entries(model, key, leaf.shape) for key, leaf in products)


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
        count * multiply_adds(pair.models[role], pair.params[role])
        for role, count in setting.method.scored(setting, counts).items()
        if count > 0  # an expert alone has no drafter to weigh
    )
    return total / counts["emitted"]
