"""The text model of Gemma 3 checkpoints that can also see (4B and up)."""

import dataclasses

from speccascade.errors import UserError
from speccascade.importing.architectures import known
from speccascade.importing.architectures.decoder_only import gemma3
from speccascade.importing.weights import Plan, Weight
from speccascade.inputs.fields import Fields

# What `transformers` takes where the text_config of a Gemma 3 that can see does not say.
GEMMA3_TEXT = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}


def text_config(config: Fields) -> Fields:
    """Returns the fields of a config.json that are about text: all of them, or its text_config."""
    if not config.has("text_config"):
        return config
    given = config.object("text_config")
    return given.changed({k: v for k, v in GEMMA3_TEXT.items() if not given.has(k)})


def gemma3_with_vision(fields: Fields) -> Plan:
    """Plans the text model of a Gemma 3 that can see (`Gemma3ForConditionalGeneration`)."""
    known.check(fields, "gemma3")
    fields.object("text_config")
    tied = fields.boolean("tie_word_embeddings", True)  # not the inner one
    inner = text_config(fields).changed({"tie_word_embeddings": tied})
    plan = gemma3(inner)
    if unread := inner.unread():
        raise UserError(f"{fields.source} has fields that are not implemented: {', '.join(unread)}")
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
