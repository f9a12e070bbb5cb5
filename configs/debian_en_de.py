"""English to German on Debian's package descriptions: an encoder-decoder pair trained from scratch.

    python scripts/evaluate.py --config=configs/debian_en_de.py --workdir=runs/en_de
    python scripts/report.py --workdir=runs/en_de

The descriptions are fetched into runs/debian (see docs/tasks.md). The pair of 3.9M and 0.6M
parameters ships with the package, and the grid is measured on that one. It is what

    bash scripts/train_pair.sh configs/debian_en_de.py runs/en_de_pair --rounded

makes, and `--config=configs/debian_en_de.py:runs/en_de_pair/pair` measures. Expected: a loss of
2.77 per token of the validation split for the expert (52 minutes on one core of an Intel Xeon with
AMX) and of 3.42 for the drafter (16 minutes); greedy, 12.1 and 6.7 BLEU on the 96 test paragraphs
(11.9 on that Xeon). What comes of the grid is in docs/en_de.md.
"""

import os

import ml_collections

from speccascade.errors import UserError
from speccascade.inference.sweep import product


def sweep(head: str = "shipped:debian_en_de") -> tuple[dict, ...]:
    """Drafts of 1 to 7 tokens for lossless decoding and the token rule, fewer lengths for others.

    `head` is that of the learned rule, a file that scripts/learn_rule.py wrote.
    """
    both = {"temperature": (0.0, 1.0)}
    five = {"draft_length": 5, **both}
    sampled = {"draft_length": 5, "temperature": 1.0}
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"), **both)
        + product(rule="spec", draft_length=(1, 2, 3, 5, 7), **both)
        + product(rule="token_v3", alpha=(0.2, 0.5, 0.8), **five)
        + product(rule="token_v3", alpha=0.5, draft_length=(1, 2, 3, 7), **both)
        + product(rule="token_v3", alpha=0.8, draft_length=(1, 2), **both)
        + product(rule=("chow", "token_v2"), alpha=(0.3, 0.6), **five)
        + product(rule=("chow", "token_v2"), alpha=0.3, draft_length=2, **both)
        + product(rule="opt", alpha=(0.0, 0.4), **five)
        + product(rule="opt", alpha=0.0, draft_length=2, **both)
        + product(rule="learned", head=head, alpha=(-0.2, 0.0, 0.5), **five)
        + product(rule="learned", head=head, alpha=0.0, draft_length=2, **both)
        + product(rule="bild", alpha=(2.0, 4.0), fallback=0.4, draft_length=(3, 7), **both)
        # At temperature 0 it is spec.
        + product(rule="lossy", alpha=(0.2, 0.5, 0.8), **sampled)
        + product(rule="lossy", alpha=(0.5, 0.8), draft_length=2, temperature=1.0)
        + product(rule="spec", expert_top_p=(0.3, 0.6, 0.9), **sampled)
        + product(rule="spec", expert_top_k=3, **sampled)
        + product(rule="spec", expert_min_p=0.2, **sampled)
        + product(rule="spec", expert_top_p=(0.3, 0.6), draft_length=1, temperature=1.0)
        + product(rule="spec", expert_min_p=0.2, draft_length=1, temperature=1.0)
        + product(method="token_cascade", rule="chow", alpha=(0.3, 0.6), **both)
        + product(method="sequence_cascade", threshold=(-1.0, -0.5), **both)
    )


def get_config(arg: str = "expert") -> ml_collections.ConfigDict:
    """`arg` names the model to train, expert or drafter, or the directory of a pair to measure."""
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
        "num_steps": 3_500,
        "batch_size": 32,
        "row_length": 512,
        "sort_by_length": True,
        "optimizer": "muon",
        "learning_rate": 3e-3,
        "embedding_rate": 10.0,
        "warmup_steps": 100,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "prompt_weight": 0.0,
        "dropout": 0.0,
        "log_every": 50,
        "eval_every": 1_000,
        "checkpoint_every": 500,
        "init_from": "",
        "distill_from": "",
        "distill_loss": "forward_kl",
        "distill_weight": 0.5,
    }
    config.pair = "shipped:debian_en_de"
    config.evaluate = {
        "settings": sweep(),
        "splits": {"validation": 96, "test": 96},
        "max_new_tokens": 128,
        "batch_size": 64,
        "timing": {"num_examples": 20, "trials": 3},
    }
    if arg == "drafter":
        config.model.update(
            d_model=96, num_layers=1, num_decoder_layers=1, num_heads=2, head_dim=32, d_ff=256
        )
        config.train.update(num_steps=1_500)
    elif os.path.isdir(arg):
        config.pair = arg
        config.evaluate.settings = sweep(head=os.path.join(arg, "head.json"))
    elif arg != "expert":
        raise UserError(
            f"unknown model {arg!r}; choose expert or drafter, or give the directory of a pair"
        )
    return config
