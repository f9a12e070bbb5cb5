"""How time and memory grow, of a pair of 41M and 7M parameters with random weights:

python scripts/growth.py --config=configs/growth.py --workdir=runs/growth

Ten to twenty minutes on two idle cores. Sizes alone: `--config.growth.sizes="{'start': (4, 32)}"`.
"""

import ml_collections

from speccascade.errors import UserError
from speccascade.inference.sweep import product


def get_config(arg: str = "bfloat16") -> ml_collections.ConfigDict:
    """`arg` is the dtype of both models, float32 or bfloat16."""
    if arg not in ("float32", "bfloat16"):
        raise UserError(f"unknown {arg!r}; choose float32 or bfloat16")
    config = ml_collections.ConfigDict()
    common = {"family": "decoder_only", "vocab_size": 32_768, "dtype": arg, "param_dtype": arg}
    config.growth = {
        "expert": {
            **common,
            "d_model": 512,
            "num_layers": 8,
            "num_heads": 8,
            "num_kv_heads": 4,
            "head_dim": 64,
            "d_ff": 1408,
        },
        "drafter": {
            **common,
            "d_model": 192,
            "num_layers": 2,
            "num_heads": 3,
            "num_kv_heads": 3,
            "head_dim": 64,
            "d_ff": 512,
        },
        "agreement": 0.8,
        "draft_length": 4,
        "prompt_length": 32,
        "new_tokens": 64,
        "window": 256,
        "num_prompts": 32,
        "sweep_prompts": 8,
        "sweep_slots": 16,
        # The first k are a sweep of k settings.
        "sweeps": {
            "alphas of a rule": product(rule="token_v3", alpha=tuple(i / 10 for i in range(1, 9))),
            "rules": product(rule="spec")
            + product(rule=("token_v3", "token_v2", "chow", "diff", "opt", "lossy"), alpha=0.3)
            + product(rule="bild", alpha=3.0),
        },
        "sizes": {
            "prompt": (64, 256, 1024, 4096),
            "cache": (64, 256, 1024, 4096),
            "vocabulary": (32_768, 65_536, 131_072, 262_144),
            "batch": (1, 4, 16, 64),
            "slots": (1, 4, 16, 32),
            "settings": (1, 2, 4, 8),
            "start": (4, 8, 16),
        },
        "trials": 3,
    }
    return config
