"""Gemma, Llama, Mistral and Qwen checkpoints as configurations of one decoder-only transformer.

Each function reads the config.json of one architecture as `transformers` 5 does, in today's
spelling (`layer_types`) or an older one (`sliding_window_pattern`). SmolLM2 and Llama 2 and 3 are
all `llama`; Qwen2.5 is `qwen2`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.importing.architectures import known, rope_parameters
from speccascade.importing.weights import Plan, Weight
from speccascade.inputs.fields import Fields

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
}

# The largest sizes that are believed; what is above them is no model but a slip.
MOST_LAYERS = 4096
_MOST = 2**24


def llama(fields: Fields) -> Plan:
    """Plans Llama 2 and 3 and SmolLM2 (`LlamaForCausalLM`)."""
    bias = fields.boolean("attention_bias", False)
    description = {
        **common(fields, "llama", "hidden_act", "silu", tied=False),
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": fields.boolean("mlp_bias", False),
    }
    description |= rope_parameters.same_everywhere(fields, description)
    no_window(fields, description["num_layers"])
    return plan(description)


def mistral(fields: Fields) -> Plan:
    """Plans Mistral (`MistralForCausalLM`), all of whose layers slide if any does."""
    description = common(fields, "mistral", "hidden_act", "silu", tied=False, kv_heads=8)
    description |= rope_parameters.same_everywhere(fields, description)
    window, layers = _sliding_window(fields), description["num_layers"]
    if _slides(fields, layers) not in (None, [window is not None] * layers):
        kind = "full_attention" if window is None else "sliding_attention"
        raise fields.wrong("layer_types", f"{kind} in every layer with sliding_window={window}")
    return plan(description if window is None else {**description, "window": window})


def qwen2(fields: Fields) -> Plan:
    """Plans Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`)."""
    description = {
        **common(fields, "qwen2", "hidden_act", "silu", tied=False),
        "qkv_bias": True,
    }
    description |= rope_parameters.same_everywhere(fields, description)
    return plan({**description, **_qwen_window(fields, description["num_layers"])})


def qwen3_attention(fields: Fields) -> dict[str, bool]:
    """Returns what sets the attention of Qwen3, and of its mixtures, apart."""
    bias = fields.boolean("attention_bias", False)
    return {"qkv_bias": bias, "output_bias": bias, "qk_norm": True}


def qwen3(fields: Fields) -> Plan:
    """Plans Qwen3 (`Qwen3ForCausalLM`)."""
    description = {
        **common(fields, "qwen3", "hidden_act", "silu", tied=False, head_dim=128),
        **qwen3_attention(fields),
    }
    description |= rope_parameters.same_everywhere(fields, description)
    return plan({**description, **_qwen_window(fields, description["num_layers"])})


def gemma(fields: Fields) -> Plan:
    """Plans Gemma 1 (`GemmaForCausalLM`)."""
    description = {
        **common(fields, "gemma", "hidden_act", "gelu_pytorch_tanh", tied=True, head_dim=256),
        **_gemma_common(fields),
    }
    description |= rope_parameters.same_everywhere(fields, description)
    # The first releases say "gelu" and mean its approximation, as later ones say in a second field.
    if description["activation"] == "gelu_exact":
        description["activation"] = "gelu"
    no_window(fields, description["num_layers"])
    return plan(description, norm=_plus_one)


def gemma2(fields: Fields) -> Plan:
    """Plans Gemma 2 (`Gemma2ForCausalLM`)."""
    activation = "gelu_pytorch_tanh"
    description = {
        **common(fields, "gemma2", "hidden_activation", activation, tied=True, head_dim=256),
        **_gemma_common(fields),
        "post_norms": True,
        "query_pre_attn_scalar": fields.number("query_pre_attn_scalar", 256, above=0),
        "attn_softcap": fields.number("attn_logit_softcapping", 50.0, above=0, null=None),
        "logit_softcap": fields.number("final_logit_softcapping", 30.0, above=0, null=None),
    }
    description |= rope_parameters.same_everywhere(fields, description)
    window = _sliding_window(fields)
    fields.expect("sliding_window_size", window)
    slides = [i % 2 == 0 for i in range(description["num_layers"])]
    return plan({**description, **_window(fields, window, slides)}, norm=_plus_one)


def gemma3(fields: Fields) -> Plan:
    """Plans the text models of Gemma 3 (`Gemma3ForCausalLM`)."""
    activation = "gelu_pytorch_tanh"
    description = {
        **common(fields, "gemma3_text", "hidden_activation", activation, tied=True, head_dim=256),
        **_gemma_common(fields),
        "post_norms": True,
        "qk_norm": True,
        "query_pre_attn_scalar": fields.number("query_pre_attn_scalar", 256, above=0),
        "logit_softcap": fields.number("final_logit_softcapping", None, above=0),
    }
    every = fields.integer("sliding_window_pattern", 6, at_least=1)
    slides = [(i + 1) % every != 0 for i in range(description["num_layers"])]
    window = _window(fields, _sliding_window(fields), slides)
    rope = rope_parameters.gemma3(fields)
    if not window:  # no layer slides
        del rope["local_rope_base"]
    return plan({**description, **window, **rope}, norm=_plus_one)


def common(
    fields: Fields,
    model_type: str,
    activation_field: str,
    activation: str,
    *,
    tied: bool,
    head_dim: int | None = None,
    kv_heads: int | None = None,
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
      kv_heads: key-value heads where the config has no field for them; None for one to each head.
    """
    known.check(fields, model_type)
    act = fields.choice(activation_field, ACTIVATIONS, ACTIVATIONS[activation])
    width = size(fields, "hidden_size")
    heads = size(fields, "num_attention_heads")
    absent = "num_key_value_heads" not in fields.values
    kv_heads = size(fields, "num_key_value_heads", kv_heads if kv_heads and absent else heads)
    if heads % kv_heads:
        raise fields.wrong("num_key_value_heads", f"a divisor of the {heads} num_attention_heads")
    return {
        "family": "decoder_only",
        "vocab_size": size(fields, "vocab_size"),
        "d_model": width,
        "num_layers": size(fields, "num_hidden_layers", most=MOST_LAYERS),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": _head_dim(fields, head_dim, width, heads),
        "d_ff": size(fields, "intermediate_size"),
        "activation": act,
        "tie_embeddings": fields.boolean("tie_word_embeddings", tied),
        "norm_eps": fields.number("rms_norm_eps", 1e-6, at_least=0),
    }


def size(fields: Fields, name: str, *default: int | None, most: int = _MOST) -> Any:
    """Reads a size of a model: a whole number from 1 to `most`."""
    return fields.integer(name, *default, at_least=1, at_most=most)


def _head_dim(fields: Fields, default: int | None, width: int, heads: int) -> int:
    """Reads the width of a head, by default the heads' share of the width of the model."""
    head_dim = size(fields, "head_dim", default)
    if head_dim is None:
        head_dim = width // heads
        if head_dim == 0 or head_dim % 2:
            raise fields.wrong(
                "hidden_size", f"an even number of times the {heads} num_attention_heads"
            )
    elif head_dim % 2:
        raise fields.wrong("head_dim", "even for rotary positions")
    return head_dim


def _gemma_common(fields: Fields) -> dict[str, Any]:
    """Reads what Gemma 1, 2 and 3 have in common."""
    bias = fields.boolean("attention_bias", False)
    return {
        "qkv_bias": bias,
        "output_bias": bias,
        "scale_embeddings": True,
        "norm_param_dtype": "float32",
    }


def _qwen_window(fields: Fields, num_layers: int) -> dict[str, Any]:
    """Reads which of Qwen's layers slide: the last ones, where sliding is in use at all."""
    window, full = _sliding_window(fields), fields.integer("max_window_layers", 28)
    if not fields.boolean("use_sliding_window", False):
        window = None
    return _window(fields, window, [window is not None and i >= full for i in range(num_layers)])


def _sliding_window(fields: Fields) -> int | None:
    return fields.integer("sliding_window", 4096, at_least=1, null=None)


def no_window(fields: Fields, num_layers: int, used: bool = True) -> None:
    """Checks that no layer slides, of an architecture that has no such layers here.

    Args:
      fields: the config.json.
      num_layers: how many layers there are.
      used: whether a window is in use where `use_sliding_window` does not say.
    """
    window = fields.integer("sliding_window", None)
    longest = fields.integer("max_position_embeddings", None)
    hides = window and (longest is None or window < longest)
    if fields.boolean("use_sliding_window", used) and hides:
        fields.expect("sliding_window", None)
    fields.ignore("sliding_window", "max_window_layers")
    if any(_slides(fields, num_layers) or ()):
        raise fields.wrong("layer_types", "full_attention in every layer")


def _window(fields: Fields, window: int | None, slides: list[bool]) -> dict[str, Any]:
    """Reads which layers slide.

    Args:
      fields: the config.json.
      window: tokens that a sliding layer sees, itself included, as in `TransformerConfig`.
      slides: which layers slide where `layer_types` does not say.

    Returns:
      The fields `window` and `window_pattern`, nothing where no layer slides.
    """
    slides = _slides(fields, len(slides)) or slides
    if not any(slides):
        return {}
    if window is None:
        raise UserError(f"{fields.source} has layers that slide and no sliding_window")
    return {"window": window, "window_pattern": slides}


def _slides(fields: Fields, num_layers: int) -> list[bool] | None:
    """Reads which layers slide by `layer_types`, None where it is not there."""
    kinds = {"sliding_attention": True, "full_attention": False}
    return fields.choices("layer_types", kinds, None, length=num_layers)


def _plus_one(stored: np.ndarray) -> np.ndarray:
    """Returns the scale of a norm of which the checkpoint stores the difference from one."""
    return stored.astype(np.float32) + np.float32(1)


def plan(
    description: dict[str, Any], norm=None, routed: Callable[[int], dict[str, Weight]] | None = None
) -> Plan:
    """Adds where each parameter comes from.

    Args:
      description: of the model.
      norm: the transform of the scales of norms.
      routed: from the number of a layer to where its routed feed-forward layer comes from: nothing
        where that is none. None for a model without such layers.
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
        branches = routed(i) if routed else {}
        weights |= branches
        for part, ours, theirs, bias in linears:
            if part == "mlp" and branches:
                continue
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
    "MistralForCausalLM": mistral,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
    "GemmaForCausalLM": gemma,
    "Gemma2ForCausalLM": gemma2,
    "Gemma3ForCausalLM": gemma3,
}
