"""A tiny T5 of each version in which every feature of the version matters.

Weights are made from the tensors' names, as in `decoder_only_families.py`. Prompts and answers are
longer than the distance from which on relative positions share a bucket.
"""

import json
from pathlib import Path

import numpy as np

from tests.importing import decoder_only_families

GOLDEN_CONFIGS = Path(__file__).parent / "golden_t5.json"
GOLDEN_LOGITS = Path(__file__).parent / "golden_t5.npz"
VOCAB, SLOTS, ANSWER = 53, 22, 28
PROMPTS = np.array([3, SLOTS, 9], np.int32)
BATCH = len(PROMPTS)

_SIZES = {
    "vocab_size": VOCAB,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 28,
    "num_layers": 2,
    "num_heads": 3,
    "pad_token_id": 0,
    "eos_token_id": None,
    "decoder_start_token_id": 0,
}
_PLAIN = {"feed_forward_proj": "relu"}
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
# Version: the arguments of its `transformers` config.
VERSIONS = {
    "v1_0": {
        **_SIZES,
        **_PLAIN,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 16,
    },
    "v1_1": {
        **_SIZES,
        **_GATED,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 10,
        "layer_norm_epsilon": 1e-2,
    },
    "flan": {
        **_SIZES,
        **_GATED,
        "num_heads": 4,
        "decoder_start_token_id": 5,
        "relative_attention_max_distance": 18,
    },
    "ul2": {
        **_SIZES,
        "feed_forward_proj": "gated-silu",
        "tie_word_embeddings": False,
        "num_decoder_layers": 1,
        "relative_attention_num_buckets": 6,
        "relative_attention_max_distance": 20,
    },
}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor of a checkpoint, float32, the same for the same name and shape."""
    made = decoder_only_families.tensor(name, shape)
    # Strong positions and sublayers: else the last token decides alone, and texts repeat it.
    if name == "shared.weight":
        made *= 0.5 * shape[-1] ** 0.5  # the tied head divides by the root
    elif name.endswith(".q.weight"):
        made *= 0.25  # scores are not scaled
    elif name.endswith((".o.weight", ".wo.weight")):
        made *= 2
    elif "relative_attention_bias" in name:
        made *= 2.5
    return made


def texts() -> tuple[np.ndarray, np.ndarray]:
    """Returns prompts, int32 [BATCH, SLOTS], and answers, int32 [BATCH, ANSWER]."""
    tokens = np.random.RandomState(7).randint(0, VOCAB, (BATCH, SLOTS + ANSWER)).astype(np.int32)
    return tokens[:, :SLOTS], tokens[:, SLOTS:]


def whole_texts() -> np.ndarray:
    """Returns each prompt with its answer and noise behind it, int32 [BATCH, SLOTS + ANSWER]."""
    prompts, answers = texts()
    whole = np.random.RandomState(8).randint(0, VOCAB, (BATCH, SLOTS + ANSWER)).astype(np.int32)
    for row, prompt, answer, length in zip(whole, prompts, answers, PROMPTS, strict=True):
        row[: length + ANSWER] = [*prompt[:length], *answer]
    return whole


def golden() -> tuple[dict, dict]:
    """Returns each version's config.json and the answers' logits, float32 [B, ANSWER, VOCAB]."""
    with np.load(GOLDEN_LOGITS) as stored:
        return json.loads(GOLDEN_CONFIGS.read_text()), dict(stored)
