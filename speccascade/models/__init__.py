"""Models: the interface that everything else knows, and the families that implement it."""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from speccascade.errors import UserError
from speccascade.inputs.fields import Fields
from speccascade.models.interface import Cache, Model, Params, Prefilled, shapes
from speccascade.models.rope import RopeScaling
from speccascade.models.t5 import EncoderDecoder
from speccascade.models.t5_config import T5Config
from speccascade.models.transformer import DecoderOnly
from speccascade.models.transformer_config import Routing, TransformerConfig

__all__ = [
    "Cache",
    "Model",
    "Params",
    "Prefilled",
    "answers_begin",
    "build",
    "describe",
    "shapes",
]

FAMILIES = {
    "decoder_only": (DecoderOnly, TransformerConfig),
    "encoder_decoder": (EncoderDecoder, T5Config),
}


def build(config: Mapping[str, Any], source: str = "model config") -> Model:
    """Makes a model from its description, a mapping of `family` and the family's config fields.

    Args:
      config: the description.
      source: where it comes from, for messages.

    Raises:
      UserError: the family or a field is unknown, a field is missing or has a value of another
        type.
    """
    fields = Fields(config, source)
    family = fields.values.get("family", "decoder_only")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"model family {family!r} is unknown; choose one of: {', '.join(FAMILIES)}")
    model_class, config_class = FAMILIES[family]
    return model_class(_made(config_class, fields, source, "family"))


def _made(config_class: type, fields: Fields, source: str, *others: str) -> Any:
    """Makes a config of its fields; `others` are there beside them."""
    specs = {f.name: f for f in dataclasses.fields(config_class)}
    if unknown := sorted(set(fields.values) - set(specs) - set(others)):
        raise UserError(
            f"{source} has unknown fields {', '.join(unknown)}; known: {', '.join(specs)}"
        )
    needed = {name for name, f in specs.items() if f.default is dataclasses.MISSING}
    if missing := sorted(needed - set(fields.values)):
        raise UserError(f"{source} lacks {', '.join(missing)}")
    kinds = _hints(config_class)
    return config_class(
        **{name: _typed(fields, name, kinds[name]) for name in specs if name in fields.values}
    )


_hints = functools.cache(typing.get_type_hints)


def _typed(fields: Fields, name: str, kind: Any) -> Any:
    """Reads a field of a config of the type that its class declares."""
    inner, *none = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if none and not fields.has(name):
        return None
    if inner in (RopeScaling, Routing):
        value = fields.values[name]
        if isinstance(value, inner):
            return value
        if inner is Routing:
            return _made(Routing, fields.object(name), name)
        return RopeScaling.of(fields.object(name))
    if typing.get_origin(inner) is tuple:
        return tuple(fields.booleans(name))
    getters: dict[Any, Callable[[str], Any]] = {
        int: fields.integer,
        float: fields.number,
        bool: fields.boolean,
        str: fields.text,
    }
    return getters[inner](name)


def answers_begin(model: Model) -> bool:
    """Returns whether an answer is a text of its own, as behind an encoder.

    Another model's answer goes on from the text of its prompt.
    """
    return isinstance(model, EncoderDecoder)


def describe(model: Model) -> dict[str, Any]:
    """Returns the JSON-ready description from which `build` makes the same model."""
    family = next(name for name, (cls, _) in FAMILIES.items() if isinstance(model, cls))
    found = {"family": family, **dataclasses.asdict(model.config)}
    if found.get("routing") is None:  # what was measured is kept by descriptions without the field
        found.pop("routing", None)
    return found
