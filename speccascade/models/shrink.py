"""A drafter made of its expert: some of its layers, and a head over the most frequent token ids.

The embedding is the expert's own array. Where the two decode together it is in memory once.
"""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.interface import Model, Params

SHARED = "embedding"

_LAYER = re.compile(r"(.*_)(\d+)")


def shrink(
    model: Model,
    params: Params,
    layers: Sequence[int],
    head_ids: np.ndarray | None = None,
    encoder_layers: Sequence[int] | None = None,
) -> tuple[Model, Params]:
    """Returns a smaller model that starts from a model's parameters.

    Args:
      model: of any family.
      params: its parameters.
      layers: which layers are kept, counted from 0, in their order; an encoder-decoder's decoder
        layers.
      head_ids: int32 [K], the token ids that the new head scores, each once; None for all.
      encoder_layers: likewise, of an encoder-decoder's encoder; None for all of them.

    Returns:
      The model, whose output head is never tied, and its parameters: float32 ones of its own, but
      for the array `embedding`, which is the expert's.

    Raises:
      UserError: a layer does not exist or is kept twice.
    """
    description = models.describe(model)
    deep = "num_decoder_layers" in description
    _check(layers, description["num_decoder_layers" if deep else "num_layers"], "layers")
    own = {key: value for key, value in params.items() if key not in (SHARED, "head")}
    if deep:
        if encoder_layers is None:
            encoder_layers = range(description["num_layers"])
        _check(encoder_layers, description["num_layers"], "encoder_layers")
        own = {
            "decoder": _keep(own["decoder"], layers),
            "encoder": _keep(own["encoder"], encoder_layers),
        }
        description |= {"num_decoder_layers": len(layers), "num_layers": len(encoder_layers)}
    else:
        if encoder_layers is not None:
            raise UserError("encoder_layers is for encoder-decoders; leave it out")
        own = _keep(own, layers)
        windows = [model.config.layer_window(i) is not None for i in layers]
        description |= {"num_layers": len(layers), "window_pattern": windows}
        if model.config.routing is not None:
            routed = [model.config.layer_routing(i) is not None for i in layers]
            description["routing"] |= {"pattern": routed}
    size = None if head_ids is None else len(head_ids)
    description |= {"tie_embeddings": False, "head_size": size, "param_dtype": "float32"}
    small = models.build(description)

    rows = params["head"]["weight"] if "head" in params else params[SHARED].astype(jnp.float32)
    if deep and model.config.tie_embeddings:  # T5 scales what a tied head reads, else not
        rows = rows * model.config.d_model**-0.5
    head = {"weight": rows}
    if head_ids is not None:
        head = {"weight": rows[head_ids], "ids": jnp.asarray(head_ids, jnp.int32)}

    def copy(leaf):
        return jnp.array(leaf, jnp.int32 if leaf.dtype == jnp.int32 else jnp.float32)

    return small, {**jax.tree.map(copy, {**own, "head": head}), SHARED: params[SHARED]}


def _check(layers: Sequence[int], count: int, name: str) -> None:
    layers = list(layers)
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(count)):
        raise UserError(
            f"{name}={layers} must be layers of the expert, each once: it has 0 to {count - 1}"
        )


def _keep(params: Params, layers: Sequence[int]) -> Params:
    """Returns the parameters of one stack, its layers renumbered."""
    number = {old: new for new, old in enumerate(layers)}
    found = {}
    for key, value in params.items():
        match = _LAYER.fullmatch(key)
        if match is None:
            found[key] = value
        elif int(match[2]) in number:
            found[f"{match[1]}{number[int(match[2])]}"] = value
    return found
