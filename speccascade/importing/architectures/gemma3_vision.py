"""The text model of Gemma 3 checkpoints that can also see (4B and up)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from speccascade.errors import UserError
from speccascade.importing.architectures.decoder_only import SILENT, gemma3
from speccascade.importing.weights import Fields, Plan, Weight

# What `transformers` takes where the text_config of a Gemma 3 that can see does not say.
GEMMA3_TEXT = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the fields of a config.json that are about text: all of them, or its text_config."""
    given = config.get("text_config")
    return {**GEMMA3_TEXT, **given} if isinstance(given, Mapping) else config


def gemma3_with_vision(fields: Fields) -> Plan:
    """Plans the text model of a Gemma 3 that can see (`Gemma3ForConditionalGeneration`)."""
    fields.ignore(*SILENT, "vision_config", "mm_tokens_per_image", "image_token_index")
    fields.ignore("boi_token_index", "eoi_token_index")
    fields.expect("model_type", "gemma3")
    if not isinstance(fields.get("text_config"), Mapping):
        raise UserError("config.json has a text_config that is no object")
    tied = {"tie_word_embeddings": fields.get("tie_word_embeddings", True)}  # not the inner one
    inner = Fields({**text_config(fields.values), **tied}, "text_config of config.json")
    plan = gemma3(inner)
    if unread := inner.unread():
        raise UserError(
            f"text_config of config.json has fields that are not implemented: {', '.join(unread)}"
        )
    head = plan.tied_head
    return dataclasses.replace(
        plan,
        weights={key: _beside_vision(weight) for key, weight in plan.weights.items()},
        ignored=(r"(model\.)?(vision_tower|multi_modal_projector)\..*",),
        tied_head=head and _beside_vision(head),
    )


def _beside_vision(weight: Weight) -> Weight:
    """Returns where a weight of a text model lies in a checkpoint that can also see."""
    inner = weight.name.removeprefix("model.")
    later = f"model.language_model.{inner}" if inner != weight.name else weight.name
    return Weight(f"language_model.{weight.name}", weight.transform, otherwise=later)


ARCHITECTURES = {"Gemma3ForConditionalGeneration": gemma3_with_vision}
