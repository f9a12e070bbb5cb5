"""The pairs of the paper's experiments: what their models are made of, and what configs share.

Sizes are those that the models' config.json files publish. A config that names them can be planned
(`scripts/tpu_plan.py`) without the weights.
"""

from typing import Any

import ml_collections

_GEMMA2 = {
    "family": "decoder_only",
    "vocab_size": 256_000,
    "activation": "gelu",
    "post_norms": True,
    "query_pre_attn_scalar": 256,
    "window": 4096,
    "window_pattern": (True, False),
    "attn_softcap": 50.0,
    "logit_softcap": 30.0,
    "scale_embeddings": True,
    "norm_param_dtype": "float32",
}

_T5 = {  # v1.1
    "family": "encoder_decoder",
    "vocab_size": 32_128,
    "head_dim": 64,
    "activation": "gelu",
    "gated_mlp": True,
    "tie_embeddings": False,
}


def _gemma2(d_model, num_layers, num_heads, num_kv_heads, head_dim, d_ff, **others):
    return {
        **_GEMMA2,
        "d_model": d_model,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "d_ff": d_ff,
        **others,
    }


def _t5(d_model, layers, num_heads, d_ff):
    return {
        **_T5,
        "d_model": d_model,
        "num_layers": layers,
        "num_decoder_layers": layers,
        "num_heads": num_heads,
        "d_ff": d_ff,
    }


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "google/gemma-2-2b": _gemma2(2304, 26, 8, 4, 256, 9216),
    "google/gemma-2-9b": _gemma2(3584, 42, 16, 8, 256, 14_336),
    "google/gemma-2-27b": _gemma2(4608, 46, 32, 16, 128, 36_864, query_pre_attn_scalar=144),
    "google/t5-v1_1-small": _t5(512, 8, 6, 1024),
    "google/t5-v1_1-large": _t5(1024, 24, 16, 2816),
    "google/t5-v1_1-xl": _t5(2048, 24, 32, 5120),
}


def config(
    drafter: str,
    expert: str,
    *,
    mesh: dict[str, int],
    draft_length: int,
    prompt_length: int,
    max_new_tokens: int,
    dtype: str = "bfloat16",
) -> ml_collections.ConfigDict:
    """Returns a config of two of `ARCHITECTURES`.

    Args:
      drafter: its hub id.
      expert: its hub id.
      mesh: devices along each axis.
      draft_length: N, as in the paper.
      prompt_length: room for a prompt, tokens.
      max_new_tokens: room for an answer, tokens.
      dtype: of weights and activations.
    """
    hub = {"drafter": drafter, "expert": expert}
    kinds = {"dtype": dtype, "param_dtype": dtype}
    return ml_collections.ConfigDict(
        {
            "pair": hub,
            "models": {role: {**ARCHITECTURES[name], **kinds} for role, name in hub.items()},
            "mesh": mesh,
            "plan": {
                "batch_size": 8,
                "prompt_length": prompt_length,
                "max_new_tokens": max_new_tokens,
                "setting": {"rule": "token_v3", "alpha": 0.3, "draft_length": draft_length},
            },
        }
    )
