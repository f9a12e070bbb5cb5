"""Models over fewer token ids.

Checkpoints pad their embeddings to round numbers of rows. No token belongs to such a row, and so
none may be sampled: the rows are cut away.
"""

import jax

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.interface import Model, Params

_ROWS = ("embedding", "head/weight", "head/bias")


def to_vocabulary(model: Model, params: Params, vocab_size: int) -> tuple[Model, Params]:
    """Returns a model without the token ids from `vocab_size` on.

    Args:
      model: of any family whose token ids are the rows (axis 0) of the parameters `embedding`,
        `head/weight` and `head/bias`, as far as it has them.
      params: its parameters.
      vocab_size: how many ids are kept, the first.

    Raises:
      UserError: the model has fewer ids, or other parameters depend on their number.
    """
    if vocab_size == model.vocab_size:
        return model, params
    if vocab_size > model.vocab_size:
        raise UserError(
            f"the tokenizer has {vocab_size} token ids and the model only {model.vocab_size}; give "
            "the tokenizer that belongs to the model"
        )
    smaller = models.build({**models.describe(model), "vocab_size": vocab_size})

    def cut(path, leaf):
        key = jax.tree_util.keystr(path, simple=True, separator="/")
        # The arrays of an `Int8` have as many rows as their matrix.
        return leaf[:vocab_size] if key.startswith(_ROWS) else leaf

    params = jax.tree_util.tree_map_with_path(cut, params)
    wanted = models.shapes(smaller)
    if jax.tree.map(lambda x: x.shape, wanted) != jax.tree.map(lambda x: x.shape, params):
        raise UserError(
            "the model's padding cannot be cut away: parameters beside its embedding and head "
            "depend on the number of token ids"
        )
    return smaller, params
