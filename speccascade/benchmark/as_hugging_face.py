"""A decoder-only model of ours in the terms of a Hugging Face checkpoint.

The importer's own mapping is used the other way round: a config.json is right if the importer makes
this very model of it, and its tensors then are those that the importer would read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from speccascade import models
from speccascade.errors import UserError
from speccascade.importing.architectures import decoder_only, rope_parameters, routed
from speccascade.importing.weights import Plan
from speccascade.inputs.fields import Fields
from speccascade.models.interface import Model, Params
from speccascade.models.transformer_config import Routing, TransformerConfig
from speccascade.workdir.parameter_files import flat

_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(decoder_only.ACTIVATIONS.items())}
_OF_GEMMA = ("Gemma2ForCausalLM", "Gemma3ForCausalLM")
_ARCHITECTURES = {**decoder_only.ARCHITECTURES, **routed.ARCHITECTURES}
_OF_QWEN = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")


def config_of(model: Model) -> tuple[dict[str, Any], Plan]:
    """Returns the config.json of a model, and the plan by which it would be imported.

    Args:
      model: with weights as they are multiplied, see `quantisation.widened`.

    Raises:
      UserError: no architecture of `transformers` is this model.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, TransformerConfig):
        raise UserError("the comparison is for decoder-only models; this one is an encoder-decoder")
    if config.head_size is not None:
        raise UserError(
            f"no model of transformers has a head over {config.head_size} tokens as this one has; "
            "take another pair"
        )
    for architecture, planner in _ARCHITECTURES.items():
        fields = Fields(_written(config, architecture), "config.json")
        try:
            plan = planner(fields)
            found = models.build(plan.description).config
        except UserError:
            continue
        if _plain(found) == _plain(config) and not fields.unread():
            return fields.values, plan
    raise UserError(f"no architecture of transformers is this model: {config}")


def _written(config: TransformerConfig, architecture: str) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": config.rope_base}
    if (scaling := config.rope_scaling) is not None:
        rope["rope_type"] = scaling.kind
        for ours, theirs in rope_parameters.KINDS[scaling.kind].items():
            rope[theirs] = getattr(scaling, ours)
        if scaling.kind == "yarn":  # the importer has put it into the scale of the scores
            rope["attention_factor"] = (config.head_dim / _score_scale(config)) ** 0.25
    if architecture == "Gemma3ForCausalLM":
        local = {"rope_type": "default", "rope_theta": config.local_rope_base or 10_000.0}
        rope = {"full_attention": rope, "sliding_attention": local}
    activation = "hidden_activation" if architecture in _OF_GEMMA else "hidden_act"
    slides = [config.layer_window(i) is not None for i in range(config.num_layers)]
    found = {
        "architectures": [architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        activation: _ACTIVATIONS[config.activation],
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "rope_parameters": rope,
    }
    if any(slides):
        kinds = ["sliding_attention" if slide else "full_attention" for slide in slides]
        found["sliding_window"] = config.window
        if architecture != "MixtralForCausalLM":  # all of its layers slide, if any does
            found["layer_types"] = kinds
        if architecture in _OF_QWEN:
            found["use_sliding_window"] = True
    if architecture in _OF_GEMMA:
        found |= {
            "query_pre_attn_scalar": _score_scale(config),
            "final_logit_softcapping": config.logit_softcap,
        }
    if config.routing is not None:
        found |= _routing(config, config.routing, architecture)
    if architecture == "Gemma2ForCausalLM":
        found["attn_logit_softcapping"] = config.attn_softcap
    return found


def _routing(config: TransformerConfig, routing: Routing, architecture: str) -> dict[str, Any]:
    found: dict[str, Any] = {"num_experts_per_tok": routing.chosen}
    if architecture == "MixtralForCausalLM":
        return {**found, "num_local_experts": routing.branches}
    if routing.shared_d_ff is not None:
        found["shared_expert_intermediate_size"] = routing.shared_d_ff
        found["qkv_bias"] = config.qkv_bias
    return {
        **found,
        "num_experts": routing.branches,
        "moe_intermediate_size": routing.d_ff,
        "norm_topk_prob": routing.normalised,
        "mlp_only_layers": [i for i in range(config.num_layers) if not config.layer_routing(i)],
    }


def _score_scale(config: TransformerConfig) -> float:
    return config.query_pre_attn_scalar or config.head_dim


def _plain(config: TransformerConfig) -> Any:
    """Returns what two configs have in common that compute the same, dtypes aside."""
    windows = [config.layer_window(i) for i in range(config.num_layers)]
    through = [config.layer_routing(i) is not None for i in range(config.num_layers)]
    plain = dataclasses.replace(
        config,
        routing=config.routing and dataclasses.replace(config.routing, pattern=(True,)),
        query_pre_attn_scalar=float(f"{_score_scale(config):.6g}"),  # YaRN's is a fourth power
        window_pattern=(True,),
        window=1,
        dtype="float32",
        param_dtype="float32",
        norm_param_dtype=None,
    )
    return plain, windows, through


def tensors_of(params: Params, plan: Plan) -> Mapping[str, jax.Array]:
    """Returns the tensors of a checkpoint by name, without a copy where none is needed."""
    found: dict[str, jax.Array] = {}
    for key, leaf in flat(params).items():
        weight = plan.weights[key]
        if weight.stacked is not None:
            found |= dict(zip(weight.names(()), leaf, strict=True))
            continue
        # The one transform of decoder-only models: a norm's scale, stored less one.
        found[weight.name] = leaf if weight.transform is None else leaf - jnp.ones((), leaf.dtype)
    return found
