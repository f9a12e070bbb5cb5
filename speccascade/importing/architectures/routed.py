"""Mixtral and Qwen's mixtures of experts: a decoder-only transformer with routed layers.

What these checkpoints call experts are the branches of `Routing`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from speccascade.importing.architectures import rope_parameters
from speccascade.importing.architectures.decoder_only import (
    common,
    no_window,
    plan,
    qwen3_attention,
    size,
)
from speccascade.importing.weights import Plan, Weight
from speccascade.inputs.fields import Fields

MOST_BRANCHES = 4096  # that are believed

_PROJECTIONS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}


def mixtral(fields: Fields) -> Plan:
    """Plans Mixtral (`MixtralForCausalLM`), whose every layer is routed."""
    description = {
        **common(fields, "mixtral", "hidden_act", "silu", tied=False, kv_heads=8),
        "norm_eps": fields.number("rms_norm_eps", 1e-5, at_least=0),
        "window": fields.integer("sliding_window", None, at_least=1),
    }
    routing = _routing(fields, branches=8, chosen=2)
    description["routing"] = {**routing, "d_ff": description["d_ff"], "normalised": True}
    description |= rope_parameters.same_everywhere(fields, description, base=1e6)

    def weights(layer: int) -> dict[str, Weight]:
        names = {"gate": "w1", "up": "w3", "down": "w2"}
        block = f"model.layers.{layer}.block_sparse_moe"
        return _branches(block, f"mlp_{layer}", names, routing["branches"])

    return plan(description, routed=weights)


def qwen2_moe(fields: Fields) -> Plan:
    """Plans Qwen2-MoE and Qwen1.5-MoE (`Qwen2MoeForCausalLM`), which have a shared branch."""
    description = {
        **common(fields, "qwen2_moe", "hidden_act", "silu", tied=False),
        "qkv_bias": fields.boolean("qkv_bias", True),
    }
    shared = size(fields, "shared_expert_intermediate_size", 5632)
    routing = _qwen_routing(fields, description, branches=60, chosen=4, d_ff=1408)
    return _qwen(fields, description, {**routing, "shared_d_ff": shared})


def qwen3_moe(fields: Fields) -> Plan:
    """Plans Qwen3-MoE (`Qwen3MoeForCausalLM`)."""
    description = {
        **common(fields, "qwen3_moe", "hidden_act", "silu", tied=False),
        **qwen3_attention(fields),
    }
    routing = _qwen_routing(fields, description, branches=128, chosen=8, d_ff=768)
    return _qwen(fields, description, routing)


def _qwen(fields: Fields, description: dict[str, Any], routing: dict[str, Any]) -> Plan:
    no_window(fields, description["num_layers"], used=False)
    description["routing"] = routing
    description |= rope_parameters.same_everywhere(fields, description)

    def weights(layer: int) -> dict[str, Weight]:
        if not routing["pattern"][layer]:
            return {}
        block, mlp = f"model.layers.{layer}.mlp", f"mlp_{layer}"
        found = _branches(block, mlp, _PROJECTIONS, routing["branches"])
        if "shared_d_ff" in routing:
            found[f"{mlp}/shared_router"] = Weight(f"{block}.shared_expert_gate.weight")
            for ours, theirs in _PROJECTIONS.items():
                name = f"{block}.shared_expert.{theirs}.weight"
                found[f"{mlp}/shared/{ours}/weight"] = Weight(name)
        return found

    return plan(description, routed=weights)


def _routing(fields: Fields, branches: int, chosen: int) -> dict[str, Any]:
    """Reads how many branches there are, by either of two names, and how many are chosen."""
    one, other = "num_experts", "num_local_experts"  # as `transformers` 5 writes it
    name = other if fields.has(other) else one
    branches = size(fields, name, branches, most=MOST_BRANCHES)
    fields.expect(one, branches)
    chosen = size(fields, "num_experts_per_tok", chosen)
    if chosen > branches:
        raise fields.wrong("num_experts_per_tok", f"at most the {branches} of {name}")
    return {"branches": branches, "chosen": chosen}


def _qwen_routing(
    fields: Fields, description: Mapping[str, Any], branches: int, chosen: int, d_ff: int
) -> dict[str, Any]:
    """Reads how Qwen's layers are routed: each of so many, but for those that are listed."""
    layers = description["num_layers"]
    every = fields.integer("decoder_sparse_step", 1, at_least=1)
    plain = fields.integers("mlp_only_layers", [])
    return {
        **_routing(fields, branches, chosen),
        "d_ff": size(fields, "moe_intermediate_size", d_ff),
        "normalised": fields.boolean("norm_topk_prob", False),
        "pattern": [i not in plain and (i + 1) % every == 0 for i in range(layers)],
    }


def _branches(block: str, mlp: str, names: Mapping[str, str], branches: int) -> dict[str, Weight]:
    """Returns where the router and the branches of a layer come from."""
    return {
        f"{mlp}/router": Weight(f"{block}.gate.weight"),
        **{
            f"{mlp}/{ours}": Weight(f"{block}.experts.{{}}.{theirs}.weight", stacked=branches)
            for ours, theirs in names.items()
        },
    }


ARCHITECTURES: dict[str, Callable[[Fields], Plan]] = {
    "MixtralForCausalLM": mixtral,
    "Qwen2MoeForCausalLM": qwen2_moe,
    "Qwen3MoeForCausalLM": qwen3_moe,
}
