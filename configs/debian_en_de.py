"""English to German on Debian's package descriptions: an encoder-decoder pair trained from scratch.

    python scripts/train.py --config=configs/debian_en_de.py:expert --workdir=runs/en_de_expert
    python scripts/train.py --config=configs/debian_en_de.py:drafter --workdir=runs/en_de_drafter \\
        --config.train.distill_from=runs/en_de_expert
"""

import ml_collections

from speccascade.errors import UserError


def get_config(arg: str = "expert") -> ml_collections.ConfigDict:
    """`arg` names the model to train: expert or drafter."""
    config = ml_collections.ConfigDict()
    config.task = {"name": "debian_en_de", "format": "t5", "path": "runs/debian"}
    config.tokenizer = {"vocab_size": 4096, "train_examples": 16_000}
    config.model = {
        "family": "encoder_decoder",
        "d_model": 192,
        "num_layers": 3,
        "num_decoder_layers": 3,
        "num_heads": 3,
        "head_dim": 64,
        "d_ff": 512,
        "tie_embeddings": True,
        "dtype": "bfloat16",
    }
    config.train = {
        "seed": 0,
        "num_steps": 5_500,
        "batch_size": 16,
        "row_length": 512,
        "sort_by_length": True,
        "optimizer": "muon",
        "learning_rate": 2e-3,
        "warmup_steps": 200,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "prompt_weight": 0.0,
        "log_every": 50,
        "eval_every": 1_000,
        "checkpoint_every": 500,
        "distill_from": "",
        "distill_loss": "forward_kl",
        "distill_weight": 0.5,
    }
    if arg == "drafter":
        config.model.update(
            d_model=96, num_layers=1, num_decoder_layers=1, num_heads=2, head_dim=32, d_ff=256
        )
        config.train.update(num_steps=2_500)
    elif arg != "expert":
        raise UserError(f"unknown model {arg!r}; choose expert or drafter")
    return config
