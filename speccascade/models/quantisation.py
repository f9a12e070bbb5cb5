"""Models whose weights are rounded to int8 after training; no data is needed for it."""

from typing import Any

import jax

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.int8 import Int8
from speccascade.models.interface import Model, Params
from speccascade.models.transformer_config import WEIGHT_DTYPES


def check_weights(weights: str | None) -> None:
    """Raises UserError where `weights` is neither "int8" nor None."""
    if weights not in WEIGHT_DTYPES:
        raise UserError(f"weights={weights!r} is unknown; give int8, or leave it out")


def is_int8(model: Model) -> bool:
    """Returns whether a model keeps its matrices as int8."""
    return model.config.weight_dtype == "int8"


def quantised(model: Model) -> Model:
    """Returns the same model with int8 weights."""
    return models.build({**models.describe(model), "weight_dtype": "int8"})


def quantise(model: Model, params: Params) -> tuple[Model, Params]:
    """Rounds the embedding and every matrix of a product; one that was rounded stays as it is.

    Args:
      model: of any family.
      params: its parameters, laid out in any way.
    """
    if is_int8(model):
        return model, params
    model = quantised(model)

    def convert(like, leaf):
        return to_int8(leaf) if _is_leaf(like) and not _is_leaf(leaf) else leaf

    return model, jax.tree.map(convert, models.shapes(model), params, is_leaf=_is_leaf)


def widened(model: Model, params: Params) -> tuple[Model, Params]:
    """Returns a model with its int8 matrices in the dtype it computes in, and so its own values."""
    if not is_int8(model):
        return model, params
    dtype = model.config.dtype
    made = models.build({**models.describe(model), "weight_dtype": None, "param_dtype": dtype})

    def convert(leaf):
        return leaf.astype(dtype) if _is_leaf(leaf) else leaf

    return made, jax.tree.map(convert, params, is_leaf=_is_leaf)


to_int8 = jax.jit(Int8.of)
"""`Int8.of`, on whatever devices the matrix is."""


def int8_keys(model: Model) -> frozenset[str]:
    """Returns the flat keys of the parameters that a model keeps as int8."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(models.shapes(model), is_leaf=_is_leaf)
    return frozenset(
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in leaves
        if _is_leaf(leaf)
    )


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Int8)
