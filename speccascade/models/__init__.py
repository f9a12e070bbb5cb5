"""Models: the interface that everything else knows, and the families that implement it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from speccascade.errors import UserError
from speccascade.models.interface import Cache, Model, Params, Prefilled
from speccascade.models.t5 import EncoderDecoder
from speccascade.models.t5_config import T5Config
from speccascade.models.transformer import DecoderOnly
from speccascade.models.transformer_config import TransformerConfig

__all__ = ["Cache", "Model", "Params", "Prefilled", "answers_begin", "build", "describe"]

FAMILIES = {
    "decoder_only": (DecoderOnly, TransformerConfig),
    "encoder_decoder": (EncoderDecoder, T5Config),
}


def build(config: Mapping[str, Any]) -> Model:
    """Makes a model from its description, a mapping of `family` and the family's config fields.

    Raises:
      UserError: the family or a field is unknown, or a field is missing.
    """
    fields = dict(config)
    family = fields.pop("family", "decoder_only")
    if family not in FAMILIES:
        raise UserError(f"model family {family!r} is unknown; choose one of: {', '.join(FAMILIES)}")
    model_class, config_class = FAMILIES[family]
    specs = {f.name: f for f in dataclasses.fields(config_class)}
    if unknown := sorted(set(fields) - set(specs)):
        raise UserError(
            f"model config has unknown fields {', '.join(unknown)}; known: {', '.join(specs)}"
        )
    needed = {name for name, f in specs.items() if f.default is dataclasses.MISSING}
    if missing := sorted(needed - set(fields)):
        raise UserError(f"model config lacks {', '.join(missing)}")
    return model_class(config_class(**fields))


def answers_begin(model: Model) -> bool:
    """Returns whether an answer is a text of its own, as behind an encoder.

    Another model's answer goes on from the text of its prompt.
    """
    return isinstance(model, EncoderDecoder)


def describe(model: Model) -> dict[str, Any]:
    """Returns the JSON-ready description from which `build` makes the same model."""
    family = next(name for name, (cls, _) in FAMILIES.items() if isinstance(model, cls))
    return {"family": family, **dataclasses.asdict(model.config)}
