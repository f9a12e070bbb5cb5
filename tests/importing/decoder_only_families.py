"""A tiny model of each decoder-only family in which every feature of the family matters.

Weights are made from the tensors' names, so that they need not be stored: the same ones are made
for the reference and, without it, for the golden logits.
"""

import json
import zlib
from pathlib import Path

import numpy as np

GOLDEN_CONFIGS = Path(__file__).parent / "golden_decoder_only.json"
GOLDEN_LOGITS = Path(__file__).parent / "golden_decoder_only.npz"
VOCAB, LENGTH = 53, 26

_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,  # waves of all three kinds among the 5 of a head
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,  # frequencies kept, stretched and between
}
_QWEN_MOE = {
    "num_hidden_layers": 2,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
}
# Family: architecture and the arguments of its `transformers` config.
FAMILIES = {
    "llama2": (
        "LlamaForCausalLM",
        {**_SIZES, "rms_norm_eps": 1e-2, "attention_bias": True, "mlp_bias": True},
    ),
    "llama3": (
        "LlamaForCausalLM",
        {**_SIZES, "head_dim": 10, "rope_parameters": _LLAMA3_ROPE, "hidden_act": "relu"},
    ),
    "smollm2": (
        "LlamaForCausalLM",
        {
            **_SIZES,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        },
    ),
    "mistral": (
        "MistralForCausalLM",
        {**_SIZES, "sliding_window": 5, "hidden_act": "silu", "rms_norm_eps": 1e-5},
    ),
    "mistral_v3": (
        "MistralForCausalLM",
        {
            **_SIZES,
            "head_dim": 16,
            "sliding_window": None,
            "rope_parameters": {**_YARN, "beta_fast": 4.0, "beta_slow": 0.5},
        },
    ),
    "qwen2": (
        "Qwen2ForCausalLM",
        {**_SIZES, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    "qwen2_5": (
        "Qwen2ForCausalLM",
        {
            **_SIZES,
            "tie_word_embeddings": True,
            "hidden_act": "gelu",
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0},
        },
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        {
            **_SIZES,
            "head_dim": 10,
            "attention_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
    ),
    "qwen3_yarn": (
        "Qwen3ForCausalLM",
        {**_SIZES, "head_dim": 16, "rope_parameters": {**_YARN, "attention_factor": 1.3}},
    ),
    "mixtral": (
        "MixtralForCausalLM",
        {
            **_SIZES,
            "num_hidden_layers": 2,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": 5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
    ),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        {**_SIZES, **_QWEN_MOE, "shared_expert_intermediate_size": 20, "decoder_sparse_step": 2},
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {
            **_SIZES,
            **_QWEN_MOE,
            "head_dim": 10,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        },
    ),
    "gemma": ("GemmaForCausalLM", {**_SIZES, "head_dim": 8, "num_key_value_heads": 1}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            **_SIZES,
            "head_dim": 8,
            "query_pre_attn_scalar": 3,
            "sliding_window": 5,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 6.0,
        },
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        {
            **_SIZES,
            "num_hidden_layers": 4,
            "head_dim": 10,
            "query_pre_attn_scalar": 3,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]
            + ["sliding_attention"],
            "final_logit_softcapping": 6.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
        },
    ),
}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor of a checkpoint, float32, the same for the same name and shape."""
    # The legacy generator's stream is frozen: later versions of numpy draw the same.
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name == "model.norm.weight":
        noise = 2 * noise - 1  # of both signs, or a tied head repeats the last token for ever
    elif "norm" in name:
        noise = 0.8 + 0.5 * noise  # with Gemma's one added it is far from one, too
    elif name.endswith(".bias"):
        noise = 0.5 * noise
    else:
        noise = 1.6 * noise / shape[-1] ** 0.5
    return noise.astype(np.float32)


def tokens(rows: int) -> np.ndarray:
    """Returns texts, int32 [rows, LENGTH]."""
    return np.random.RandomState(7).randint(0, VOCAB, (rows, LENGTH)).astype(np.int32)


def golden() -> tuple[dict, dict]:
    """Returns the stored config.json and the logits, float32 [LENGTH, VOCAB], of each family."""
    with np.load(GOLDEN_LOGITS) as stored:
        return json.loads(GOLDEN_CONFIGS.read_text()), dict(stored)
