"""Gemma, Llama and Qwen checkpoints as configurations of one decoder-only transformer.

Each function reads the config.json of one architecture as `transformers` 5 does, in today's
spelling (`rope_parameters`, `layer_types`) or an older one (`rope_theta`, `rope_scaling`,
`sliding_window_pattern`). SmolLM2 and Llama 2 and 3 are all `llama`; Qwen2.5 is `qwen2`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.importing.weights import Fields, Plan, Weight

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
}

# What says nothing about the computation of logits.
SILENT = (
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "bos_token_id",
    "cache_implementation",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "max_position_embeddings",
    "pad_token_id",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
)


def llama(fields: Fields) -> Plan:
    """Plans Llama 2 and 3 and SmolLM2 (`LlamaForCausalLM`)."""
    fields.ignore("is_llama_config", "pretraining_tp")
    fields.expect("rope_interleaved", False)
    bias = fields.get("attention_bias", False)
    description = {
        **_common(fields, "llama", "hidden_act", "silu", tied=False),
        **_rope(fields),
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": fields.get("mlp_bias", False),
    }
    return _plan(description)


def qwen2(fields: Fields) -> Plan:
    """Plans Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`)."""
    fields.expect("use_mrope", False)
    description = {
        **_common(fields, "qwen2", "hidden_act", "silu", tied=False),
        **_rope(fields),
        "qkv_bias": True,
    }
    return _plan({**description, **_qwen_window(fields, description["num_layers"])})


def qwen3(fields: Fields) -> Plan:
    """Plans Qwen3 (`Qwen3ForCausalLM`)."""
    bias = fields.get("attention_bias", False)
    description = {
        **_common(fields, "qwen3", "hidden_act", "silu", tied=False, head_dim=128),
        **_rope(fields),
        "qkv_bias": bias,
        "output_bias": bias,
        "qk_norm": True,
    }
    return _plan({**description, **_qwen_window(fields, description["num_layers"])})


def gemma(fields: Fields) -> Plan:
    """Plans Gemma 1 (`GemmaForCausalLM`)."""
    description = {
        **_common(fields, "gemma", "hidden_act", "gelu_pytorch_tanh", tied=True, head_dim=256),
        **_rope(fields),
        **_gemma_common(fields),
    }
    # The first releases say "gelu" and mean its approximation, as later ones say in a second field.
    if description["activation"] == "gelu_exact":
        description["activation"] = "gelu"
    fields.expect("hidden_activation", None, "gelu_pytorch_tanh")
    return _plan(description, norm=_plus_one)


def gemma2(fields: Fields) -> Plan:
    """Plans Gemma 2 (`Gemma2ForCausalLM`)."""
    activation = "gelu_pytorch_tanh"
    description = {
        **_common(fields, "gemma2", "hidden_activation", activation, tied=True, head_dim=256),
        **_rope(fields),
        **_gemma_common(fields),
        "post_norms": True,
        "query_pre_attn_scalar": fields.get("query_pre_attn_scalar", 256),
        "attn_softcap": fields.get("attn_logit_softcapping", 50.0),
        "logit_softcap": fields.get("final_logit_softcapping", 30.0),
    }
    fields.ignore("hidden_act")  # `hidden_activation` is what counts
    window = fields.get("sliding_window", 4096)
    fields.expect("sliding_window_size", window)
    slides = [i % 2 == 0 for i in range(description["num_layers"])]
    return _plan({**description, **_window(fields, window, slides)}, norm=_plus_one)


def gemma3(fields: Fields) -> Plan:
    """Plans the text models of Gemma 3 (`Gemma3ForCausalLM`)."""
    activation = "gelu_pytorch_tanh"
    description = {
        **_common(fields, "gemma3_text", "hidden_activation", activation, tied=True, head_dim=256),
        **_gemma_common(fields),
        "post_norms": True,
        "qk_norm": True,
        "query_pre_attn_scalar": fields.get("query_pre_attn_scalar", 256),
        "logit_softcap": fields.get("final_logit_softcapping", None),
    }
    # The reference has this field and computes nothing with it.
    fields.expect("attn_logit_softcapping", None)
    fields.ignore("_sliding_window_pattern")  # a note that `transformers` leaves beside layer_types
    every = fields.get("sliding_window_pattern", 6)
    slides = [(i + 1) % every != 0 for i in range(description["num_layers"])]
    window = _window(fields, fields.get("sliding_window", 4096), slides)
    rope = _gemma3_rope(fields)
    if not window:  # no layer slides
        del rope["local_rope_base"]
    return _plan({**description, **window, **rope}, norm=_plus_one)


def _common(
    fields: Fields,
    model_type: str,
    activation_field: str,
    activation: str,
    *,
    tied: bool,
    head_dim: int | None = None,
) -> dict[str, Any]:
    """Reads what every architecture has.

    Args:
      fields: the config.json.
      model_type: what its `model_type` is, where it has one.
      activation_field: the field that names the activation.
      activation: the activation where the field is absent.
      tied: whether embeddings are tied where the config does not say.
      head_dim: the width of a head where the config does not say; None for the heads' share of
        the width of the model.
    """
    fields.ignore(*SILENT)
    fields.expect("model_type", model_type)
    name = fields.get(activation_field, activation)
    if name not in ACTIVATIONS:
        raise UserError(
            f"config.json has {activation_field}={name!r}: not implemented, only "
            f"{', '.join(ACTIVATIONS)}"
        )
    heads = _integer(fields, "num_attention_heads")
    width = _integer(fields, "hidden_size")
    kv_heads = fields.get("num_key_value_heads", None)
    head_dim = fields.get("head_dim", head_dim)
    return {
        "family": "decoder_only",
        "vocab_size": _integer(fields, "vocab_size"),
        "d_model": width,
        "num_layers": _integer(fields, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": heads if kv_heads is None else _integer(fields, "num_key_value_heads"),
        "head_dim": width // heads if head_dim is None else head_dim,
        "d_ff": _integer(fields, "intermediate_size"),
        "activation": ACTIVATIONS[name],
        "tie_embeddings": fields.get("tie_word_embeddings", tied),
        "norm_eps": fields.get("rms_norm_eps", 1e-6),
    }


def _integer(fields: Fields, name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"config.json has {name}={value!r}; it must be an integer of at least 1")
    return value


def _gemma_common(fields: Fields) -> dict[str, Any]:
    """Reads what Gemma 1, 2 and 3 have in common."""
    fields.expect("use_bidirectional_attention", None, False)
    bias = fields.get("attention_bias", False)
    return {
        "qkv_bias": bias,
        "output_bias": bias,
        "scale_embeddings": True,
        "norm_param_dtype": "float32",
    }


def _rope(fields: Fields) -> dict[str, Any]:
    """Reads rotary positions that are the same in every layer."""
    fields.expect("partial_rotary_factor", None, 1.0)
    base = fields.get("rope_theta", 10_000.0)
    old, new = fields.get("rope_scaling", None), fields.get("rope_parameters", None)
    name = "rope_scaling" if old else "rope_parameters"
    base, scaling = _rope_parameters(fields, name, old or new or {}, base)
    return {"rope_base": base, "rope_scaling": scaling}


def _gemma3_rope(fields: Fields) -> dict[str, Any]:
    """Reads Gemma 3's two kinds of rotary positions."""
    base = fields.get("rope_theta", 1_000_000.0)
    local_base = fields.get("rope_local_base_freq", 10_000.0)
    given = dict(fields.get("rope_parameters", None) or {})
    everywhere = dict(given.pop("full_attention", None) or {})
    local = dict(given.pop("sliding_attention", None) or {})
    if given:
        names = ", ".join(sorted(given))
        raise UserError(
            f"config.json has {names} in rope_parameters: not implemented, only full_attention "
            "and sliding_attention"
        )
    scaling = fields.get("rope_scaling", None) or {}
    if "type" in scaling and "rope_type" not in scaling:  # the reference would not scale at all
        raise UserError("config.json has rope_scaling with a type; Gemma 3 calls it rope_type")
    everywhere.update(scaling)
    base, scaling = _rope_parameters(fields, "rope_parameters", everywhere, base)
    name = "rope_parameters of sliding_attention"
    local_base, local_scaling = _rope_parameters(fields, name, local, local_base)
    if local_scaling is not None:
        raise UserError(
            f"config.json has rope_type={local_scaling['kind']!r} in {name}: not implemented, "
            "only 'default'"
        )
    return {"rope_base": base, "rope_scaling": scaling, "local_rope_base": local_base}


def _rope_parameters(
    fields: Fields, name: str, given: Mapping[str, Any], base: float
) -> tuple[float, dict[str, Any] | None]:
    """Reads one set of rotary parameters.

    Args:
      fields: the config.json.
      name: where in it they stand, for messages.
      given: the parameters.
      base: the base of the frequencies where they do not say.

    Returns:
      The base, and the fields of a `RopeScaling` or None.

    Raises:
      UserError: something in them is not implemented, or is missing.
    """
    given = dict(given)
    base = given.pop("rope_theta", base)
    if not isinstance(base, (int, float)):
        raise UserError(f"config.json has rope_theta={base!r}; it must be a number")
    kind = given.pop("type", "default")
    kind = given.pop("rope_type", kind)
    names = {
        "default": {},
        "linear": {"factor": "factor"},
        "llama3": {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_positions",
        },
    }
    if kind not in names:
        raise UserError(
            f"config.json has rope_type={kind!r} in {name}: not implemented, only "
            f"{', '.join(map(repr, names))}"
        )
    if kind == "llama3":
        original = fields.get("original_max_position_embeddings", None)
        if original is not None:
            given["original_max_position_embeddings"] = original
        elif "original_max_position_embeddings" not in given:
            given["original_max_position_embeddings"] = fields.get("max_position_embeddings")
    if given.get("partial_rotary_factor") in (None, 1.0):
        given.pop("partial_rotary_factor", None)
    if unread := sorted(set(given) - set(names[kind])):
        raise UserError(
            f"config.json has {', '.join(unread)} in {name}, which rope_type={kind!r} does not know"
        )
    if missing := sorted(set(names[kind]) - set(given)):
        raise UserError(f"config.json lacks {', '.join(missing)} in {name}")
    if kind == "default":
        return base, None
    return base, {"kind": kind, **{names[kind][key]: value for key, value in given.items()}}


def _qwen_window(fields: Fields, num_layers: int) -> dict[str, Any]:
    """Reads which of Qwen's layers slide: the last ones, where sliding is in use at all."""
    window, full = fields.get("sliding_window", 4096), fields.get("max_window_layers", 28)
    if not fields.get("use_sliding_window", False):
        window = None
    return _window(fields, window, [window is not None and i >= full for i in range(num_layers)])


def _window(fields: Fields, window: int | None, slides: list[bool]) -> dict[str, Any]:
    """Reads which layers slide.

    Args:
      fields: the config.json.
      window: tokens that a sliding layer sees, itself included, as in `TransformerConfig`.
      slides: which layers slide where `layer_types` does not say.

    Returns:
      The fields `window` and `window_pattern`, nothing where no layer slides.
    """
    if (types := fields.get("layer_types", None)) is not None:
        known = {"sliding_attention": True, "full_attention": False}
        if unknown := sorted({str(kind) for kind in types} - set(known)):
            raise UserError(
                f"config.json has {', '.join(unknown)} in layer_types: not implemented, only "
                f"{', '.join(known)}"
            )
        if len(types) != len(slides):
            raise UserError(
                f"config.json has {len(types)} layer_types and {len(slides)} num_hidden_layers"
            )
        slides = [known[kind] for kind in types]
    if not any(slides):
        return {}
    if window is None:
        raise UserError("config.json has layers that slide and no sliding_window")
    return {"window": window, "window_pattern": slides}


def _plus_one(stored: np.ndarray) -> np.ndarray:
    """Returns the scale of a norm of which the checkpoint stores the difference from one."""
    return stored.astype(np.float32) + np.float32(1)


def _plan(description: dict[str, Any], norm=None) -> Plan:
    """Adds where each parameter comes from.

    Args:
      description: of the model.
      norm: the transform of the scales of norms.
    """
    weights = {
        "embedding": Weight("model.embed_tokens.weight"),
        "final_norm/scale": Weight("model.norm.weight", norm),
    }
    post_norms, qk_norm = description.get("post_norms"), description.get("qk_norm")
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if post_norms:
        norms = {
            "attention_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "post_mlp_norm": "post_feedforward_layernorm",
        }
    qkv_bias, output_bias = description.get("qkv_bias"), description.get("output_bias")
    mlp_bias = description.get("mlp_bias")
    linears = [
        ("attention", "query", "self_attn.q_proj", qkv_bias),
        ("attention", "key", "self_attn.k_proj", qkv_bias),
        ("attention", "value", "self_attn.v_proj", qkv_bias),
        ("attention", "output", "self_attn.o_proj", output_bias),
        ("mlp", "gate", "mlp.gate_proj", mlp_bias),
        ("mlp", "up", "mlp.up_proj", mlp_bias),
        ("mlp", "down", "mlp.down_proj", mlp_bias),
    ]
    for i in range(description["num_layers"]):
        block = f"model.layers.{i}"
        for ours, theirs in norms.items():
            weights[f"{ours}_{i}/scale"] = Weight(f"{block}.{theirs}.weight", norm)
        for part, ours, theirs, bias in linears:
            for leaf in ("weight", "bias") if bias else ("weight",):
                weights[f"{part}_{i}/{ours}/{leaf}"] = Weight(f"{block}.{theirs}.{leaf}")
        if qk_norm:
            for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
                key = f"attention_{i}/{ours}/scale"
                weights[key] = Weight(f"{block}.self_attn.{theirs}.weight", norm)
    ignored = (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",)  # computed here
    head = Weight("lm_head.weight")
    if description["tie_embeddings"]:
        return Plan(description, weights, ignored, head, {"tie_word_embeddings": False})
    return Plan(description, {**weights, "head/weight": head}, ignored)


ARCHITECTURES = {
    "LlamaForCausalLM": llama,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
    "GemmaForCausalLM": gemma,
    "Gemma2ForCausalLM": gemma2,
    "Gemma3ForCausalLM": gemma3,
}
