"""Architectures of Hugging Face checkpoints, by the name that config.json gives."""

from collections.abc import Callable

from speccascade.importing.architectures import decoder_only, gemma3_vision, routed, t5
from speccascade.importing.architectures.gemma3_vision import text_config
from speccascade.importing.weights import Plan
from speccascade.inputs.fields import Fields

__all__ = ["ARCHITECTURES", "planner", "text_config"]

ARCHITECTURES: dict[str, Callable[[Fields], Plan]] = {
    **decoder_only.ARCHITECTURES,
    **routed.ARCHITECTURES,
    **gemma3_vision.ARCHITECTURES,
    **t5.ARCHITECTURES,
}

# The architecture of a config.json that has a model_type alone, as `transformers` finds it.
OF_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
}


def planner(config: Fields) -> Callable[[Fields], Plan]:
    """Returns what plans the model of a config.json.

    Raises:
      UserError: its architecture is unknown.
    """
    names = config.texts("architectures", (), alone=True)
    if not names and not config.has("model_type"):
        raise config.wrong("architectures", "")
    if not names:
        return ARCHITECTURES[config.choice("model_type", OF_MODEL_TYPE)]
    return config.changed({"architectures": names[0]}).choice("architectures", ARCHITECTURES)
