"""A pair of 200M and 20M parameters with random weights and settable agreement, for the benchmark:

python scripts/benchmark.py --config=configs/synthetic.py:float32
python scripts/benchmark.py --config=configs/synthetic.py:bfloat16
python scripts/benchmark.py --config=configs/synthetic.py:bfloat16,spec --peer=transformers
"""

from typing import Any

import ml_collections

from speccascade.errors import UserError
from speccascade.inference.sweep import product


def every_rule(**common: Any) -> tuple[dict[str, Any], ...]:
    """Returns each rule but `spec` and `learned` once, and `spec` by blocks, all with `common`."""
    # At these alphas a rule defers where the synthetic drafter is unsure: there it is wrong.
    return (
        product(rule="spec", verifier="block", **common)
        + product(rule=("chow", "diff", "opt"), alpha=0.3, **common)
        + product(rule=("chowlog", "optlog"), alpha=1.0, **common)
        + product(rule=("token_v1", "token_v2", "token_v3"), alpha=0.3, **common)
        + product(rule=("lossy", "lenient", "mixture", "typical"), alpha=0.3, **common)
        + product(rule="topk_relaxed", alpha=0.3, k=5, **common)
        + product(rule="bild", alpha=3.0, fallback=0.6, **common)
        + product(rule="drafter", **common)
    )


def get_config(arg: str = "float32") -> ml_collections.ConfigDict:
    """`arg` is the dtype of both models, float32 or bfloat16; with ",spec" no other rule runs."""
    dtype, _, only = arg.partition(",")
    if dtype not in ("float32", "bfloat16") or only not in ("", "spec"):
        raise UserError(f"unknown {arg!r}; choose float32 or bfloat16, and where wanted ,spec")
    config = ml_collections.ConfigDict()
    common = {"family": "decoder_only", "vocab_size": 32_000, "dtype": dtype, "param_dtype": dtype}
    config.synthetic = {
        "prompt_length": 32,
        "expert": {
            **common,
            "d_model": 1024,
            "num_layers": 12,
            "num_heads": 16,
            "num_kv_heads": 8,
            "head_dim": 64,
            "d_ff": 3456,
        },
        "drafter": {
            **common,
            "d_model": 384,
            "num_layers": 5,
            "num_heads": 6,
            "num_kv_heads": 3,
            "head_dim": 64,
            "d_ff": 1024,
        },
    }
    settings = product(rule="spec", draft_length=(2, 4, 6), agreement=(0.8, 1.0))
    if not only:
        settings += every_rule(draft_length=4, agreement=0.8)
    config.benchmark = {
        "settings": settings,
        "batch_sizes": (1, 8),
        "num_examples": 1,
        "max_new_tokens": 128,
        "step_tokens": (1, 2, 4, 8, 16),
        "step_repeats": 8,
        "trials": 3,
        "minutes": 10,
    }
    return config
