"""A training run of seconds, as a config file for `scripts/train.py` and for tests in-process."""

import ml_collections


def get_config(arg: str = "adamw") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = {
        "name": "gsm_symbolic",
        "seed": 0,
        "templates": (10, 43),
        "max_number": 60,
        "train_size": 50,
        "validation_size": 10,
        "test_size": 10,
    }
    config.tokenizer = {"vocab_size": 320, "train_examples": 50}
    config.model = {
        "family": "decoder_only",
        "d_model": 16,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 8,
        "d_ff": 16,
        "dtype": "float32",
    }
    config.train = {
        "seed": 0,
        "num_steps": 60,
        "batch_size": 4,
        "row_length": 160,
        "optimizer": arg,
        "learning_rate": 1e-2,
        "warmup_steps": 5,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "prompt_weight": 0.2,
        "log_every": 2,
        "eval_every": 20,
        "checkpoint_every": 10,
        "distill_from": "",
        "distill_loss": "forward_kl",
        "distill_weight": 0.5,
    }
    return config
