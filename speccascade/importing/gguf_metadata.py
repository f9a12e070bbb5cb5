"""The metadata of a GGUF file as the fields of the config.json that the same model has.

What the specification or llama.cpp know and nothing here computes must be without effect.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.importing.checkpoint import Tensor
from speccascade.inputs.fields import Fields

_ROPE_FACTORS = "rope_freqs.weight"
_SLIDES = "attention.sliding_window_pattern"
_HEAD_DIMS = (
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
)
_WIDTHS = ("embedding_length_out", "features_length")
_WITHOUT_EFFECT = {
    "attention.causal": (True,),
    "embedding_scale": (1, 0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "logit_scale": (1, 0),
    "pooling_type": (0, -1),
    "residual_scale": (1, 0),
    "rope.scaling.alpha": (1, 0),
    "rope.scaling.attn_factor": (1, 0),
    "rope.scaling.yarn_attn_factor": (1, 0),
    "rope.scaling.yarn_ext_factor": (0, -1),
    "tensor_data_layout": ("Meta AI original pth", "reference"),
    "use_parallel_residual": (False,),
}
_SILENT = (
    "attention.layer_norm_epsilon",  # these architectures have RMS norms only
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",  # of YaRN, as are the next
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_log_multiplier",
    "vocab_size",  # the tokenizer's; the embedding may have more rows
)


def read(
    metadata: Mapping[str, Any], stored: dict[str, Tensor], source: str
) -> tuple[str, dict[str, Any]]:
    """Returns the name of a file's architecture, and the fields of the config.json.

    Args:
      metadata: the file's.
      stored: its tensors by name. One that only describes positions is taken out.
      source: what messages call the file.

    Raises:
      UserError: the architecture or something in the metadata is not implemented, or is missing.
    """
    name = Fields(metadata, source).choice("general.architecture", _ARCHITECTURES.keys())
    fields = Fields(_own(metadata, name), source, path=name)
    config = _ARCHITECTURES[name](fields, stored)
    if unread := fields.unread():
        raise UserError(f"{source} has metadata of no known use: {', '.join(unread)}")
    return name, config


def _own(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """Returns an architecture's own metadata; what is the same for each layer is said once."""
    prefix = f"{architecture}."
    layers = metadata.get(f"{prefix}block_count")
    found = {}
    for key, value in metadata.items():
        if not key.startswith(prefix):
            continue
        if isinstance(value, list) and len(value) == layers and not key.endswith(_SLIDES):
            value = value[0] if all(each == value[0] for each in value) else value
        found[key.removeprefix(prefix)] = _short(value)
    return found


def _short(value: Any) -> Any:
    """A float32 of the file as the number that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _common(fields: Fields, stored: dict[str, Tensor], architecture: str) -> dict[str, Any]:
    """Reads what all have in common."""
    heads = fields.integer("attention.head_count", at_least=1)
    width = fields.integer("embedding_length", at_least=1)
    head_dim = fields.integer("attention.key_length", width // heads, at_least=1)
    length = fields.integer("context_length", at_least=1)
    embedding = stored.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UserError(f"{fields.source} has no matrix token_embd.weight")
    for name in _HEAD_DIMS:
        fields.expect(name, head_dim)
    for name in _WIDTHS:
        fields.expect(name, width)
    for name, values in _WITHOUT_EFFECT.items():
        fields.expect(name, *values)
    fields.ignore(*_SILENT)
    return {
        "architectures": [architecture],
        "vocab_size": embedding.shape[0],
        "hidden_size": width,
        "num_hidden_layers": fields.integer("block_count", at_least=1),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.integer("attention.head_count_kv", heads, at_least=1),
        "head_dim": head_dim,
        "intermediate_size": fields.integer("feed_forward_length", at_least=1),
        "max_position_embeddings": length,
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon", above=0),
        "rope_theta": fields.number("rope.freq_base", 10_000.0, above=0),
        "tie_word_embeddings": "output.weight" not in stored,
        **_scaling(fields),
    }


def _scaling(fields: Fields) -> dict[str, Any]:
    """Reads the scaling of positions; as in llama.cpp, a factor without a type is linear."""
    old = fields.number("rope.scale_linear", 0.0, at_least=0)
    factor = fields.number("rope.scaling.factor", old, at_least=0)
    if factor == 1 and fields.text("rope.scaling.type", None) is not None:  # nothing, of any type
        return {}
    kind = fields.choice("rope.scaling.type", ("none", "linear"), "linear")
    if kind == "none" or factor in (0, 1):
        return {}
    return {"rope_scaling": {"rope_type": "linear", "factor": float(factor)}}


def _plain_attention(fields: Fields, config: dict[str, Any]) -> None:
    """Checks that attention scores have the usual scale, and that a window hides nothing."""
    _check_scale(fields, config["head_dim"])
    window = fields.integer("attention.sliding_window", 0)
    if 0 < window < config["max_position_embeddings"]:
        raise fields.wrong("attention.sliding_window", "at least the context_length")
    fields.ignore(_SLIDES)


def _llama(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {
        **_common(fields, stored, "LlamaForCausalLM"),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in stored,
        "mlp_bias": "blk.0.ffn_gate.bias" in stored,
    }
    _plain_attention(fields, config)
    if (factors := stored.pop(_ROPE_FACTORS, None)) is not None:
        size = config["head_dim"] // 2
        if factors.shape != (size,) or factors.read_rows is None or "rope_scaling" in config:
            raise UserError(f"{fields.source} has {_ROPE_FACTORS} of a kind not implemented")
        config["rope_scaling"] = _llama3_scaling(factors.read_rows(0, size), config)
    return config


def _llama3_scaling(factors: np.ndarray, config: dict[str, Any]) -> dict[str, Any]:
    """Finds the Llama 3 scaling whose frequency divisors, all that the file keeps, are these."""
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    head_dim = config["head_dim"]
    frequency = config["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequency / (2 * np.pi)
    smooth = np.clip((turns - 1.0) / (4.0 - 1.0), 0.0, 1.0)
    expected = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    if not np.allclose(factors, expected, rtol=1e-3):
        raise UserError(f"{_ROPE_FACTORS} holds another scaling than that of Llama 3.1 to 3.3")
    return scaling


def _qwen2(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {**_common(fields, stored, "Qwen2ForCausalLM"), "hidden_act": "silu"}
    _plain_attention(fields, config)
    # The architecture has no field for another width of a head.
    if config.pop("head_dim") * config["num_attention_heads"] != config["hidden_size"]:
        raise UserError(
            f"{fields.source} has heads that are not together as wide as the model "
            "(qwen2.attention.key_length): not implemented"
        )
    return config


def _qwen3(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {
        **_common(fields, stored, "Qwen3ForCausalLM"),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in stored,
    }
    _plain_attention(fields, config)
    return config


def _gemma(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {
        **_common(fields, stored, "GemmaForCausalLM"),
        "hidden_act": "gelu_pytorch_tanh",
    }
    _plain_attention(fields, config)
    return config


def _gemma2(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = _common(fields, stored, "Gemma2ForCausalLM")
    return {
        **config,
        **_sliding(fields, config, every=2),
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(fields, config, layers_of_27b=46),
        "attn_logit_softcapping": _softcap(fields, "attn_logit_softcapping", 50.0),
        "final_logit_softcapping": _softcap(fields, "final_logit_softcapping", 30.0),
    }


def _gemma3(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = _common(fields, stored, "Gemma3ForCausalLM")
    fields.ignore("mm.tokens_per_image")  # of the vision tower, which is a file of its own
    return {
        **config,
        **_sliding(fields, config, every=6),
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(fields, config, layers_of_27b=62),
        "rope_local_base_freq": fields.number("rope.freq_base_swa", 10_000.0, above=0),
        "final_logit_softcapping": _softcap(fields, "final_logit_softcapping", None),
    }


def _softcap(fields: Fields, name: str, default: float | None) -> float | None:
    return fields.number(name, default, at_least=0) or None


def _sliding(fields: Fields, config: dict[str, Any], every: int) -> dict[str, Any]:
    """Reads which layers slide: by a list, or all but each of so many."""
    layers = config["num_hidden_layers"]
    if isinstance(fields.values.get(_SLIDES), list):
        slides = fields.booleans(_SLIDES, length=layers)
    else:
        every = fields.integer(_SLIDES, every, at_least=1)
        slides = [(i + 1) % every != 0 for i in range(layers)]
    return {
        "sliding_window": fields.integer("attention.sliding_window", at_least=1),
        "layer_types": [("full_attention", "sliding_attention")[each] for each in slides],
    }


def _query_scalar(fields: Fields, config: dict[str, Any], layers_of_27b: int) -> int:
    """Divisor of attention scores, squared. The file does not keep it; llama.cpp knows the models.

    The 27B models, which it tells by their number of layers, use the share of the width that a
    head has, all others the width of a head.
    """
    scalar = config["head_dim"]
    if config["num_hidden_layers"] == layers_of_27b:
        scalar = config["hidden_size"] // config["num_attention_heads"]
    _check_scale(fields, scalar)
    return scalar


def _check_scale(fields: Fields, scalar: int) -> None:
    scale = fields.number("attention.scale", 0)
    if scale != 0 and not math.isclose(scale, scalar**-0.5, rel_tol=1e-4):
        raise fields.wrong("attention.scale", f"1 / sqrt({scalar}), as this architecture has it")


_ARCHITECTURES = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}
