"""The embedded task: word problems with worked answers, an expert and a drafter for them.

    python scripts/train.py --config=configs/gsm_symbolic.py:expert --workdir=runs/expert
    python scripts/train.py --config=configs/gsm_symbolic.py:drafter --workdir=runs/drafter \\
        --config.train.distill_from=runs/expert

A model between the two (0.93M), for a cascade of three (docs/three_models.md), is trained like the
drafter, here from the shipped expert:

    python scripts/train.py --config=configs/gsm_symbolic.py:middle --workdir=runs/middle \\
        --config.train.distill_from=shipped:gsm_symbolic/expert

Expected, with the seeds below, in greedy exact match on the 512 validation and 512 test problems:
expert (3.4M parameters) 97.3 % and 98.2 %, drafter (0.27M) 32.2 % and 32.6 %. It took 55 and 7
minutes on two shared cores of an AMD EPYC with bfloat16 products.
"""

import ml_collections

from speccascade.errors import UserError
from speccascade.inference.sweep import product

# Eleven of reasoning-gym's templates: short, integers only, every intermediate result written out,
# and many distinct problems with numbers up to 150: the training split has from 9,000 (of 43) to
# 40,000 (of 39) of each.
TEMPLATES = (10, 14, 16, 20, 31, 39, 43, 48, 57, 72, 95)


def get_config(arg: str = "expert") -> ml_collections.ConfigDict:
    """`arg` names the model to train: expert, middle or drafter."""
    config = ml_collections.ConfigDict()
    config.task = {
        "name": "gsm_symbolic",
        "seed": 0,
        "templates": TEMPLATES,
        "max_number": 150,
        "train_size": 300_000,
        "validation_size": 512,
        "test_size": 512,
    }
    # Eleven templates have words for 966 tokens; after that no pair of tokens is left to merge.
    config.tokenizer = {"vocab_size": 1024, "train_examples": 16_000}
    config.model = {
        "family": "decoder_only",
        "d_model": 256,
        "num_layers": 4,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "d_ff": 768,
        "dtype": "bfloat16",
    }
    config.train = {
        "seed": 0,
        "num_steps": 6_000,
        "batch_size": 16,
        "row_length": 104,
        "optimizer": "muon",
        "learning_rate": 2e-3,
        "warmup_steps": 100,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "prompt_weight": 0.2,
        "log_every": 50,
        "eval_every": 500,
        "checkpoint_every": 500,
        "init_from": "",
        "distill_from": "",
        "distill_loss": "forward_kl",
        "distill_weight": 0.5,
    }
    if arg == "drafter":
        config.model.update(d_model=128, num_layers=1, num_heads=2, num_kv_heads=1, d_ff=256)
        config.train.update(num_steps=3_000)
    elif arg == "middle":
        config.model.update(d_model=160, num_layers=2, num_heads=4, num_kv_heads=2, d_ff=640)
        config.model.update(head_dim=40)
        config.train.update(num_steps=2_000)
    elif arg != "expert":
        raise UserError(f"unknown model {arg!r}; choose expert, middle or drafter")
    config.pair = "shipped:gsm_symbolic"
    config.evaluate = {
        "settings": sweep(),
        "splits": {"validation": 128, "test": 128},
        "max_new_tokens": 64,
        "batch_size": 64,
        "timing": {"num_examples": 16, "trials": 3},
    }
    return config


def sweep() -> tuple[dict, ...]:
    """Every rule over its knobs at N = 5, the main ones over N, and what runs undrafted."""
    both = {"temperature": (0.0, 1.0)}
    five = {"draft_length": 5, **both}
    others = {"draft_length": (3, 8), **both}
    sampled = {"draft_length": 5, "temperature": 1.0}  # greedy, these are lossless decoding
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"), **both)
        + product(rule="spec", draft_length=(3, 5, 8), verifier=("token", "block"), **both)
        + product(rule="chow", alpha=(0.1, 0.2, 0.4, 0.6), **five)
        + product(rule="chowlog", alpha=(0.25, 0.5, 1.0, 1.5), **five)
        + product(rule="diff", alpha=(0.0, 0.2, 0.4, 0.6), **five)
        + product(rule="opt", alpha=(-0.5, 0.0, 0.25, 0.5, 1.0), **five)
        + product(rule="learned", head="shipped:gsm_symbolic", alpha=(-0.5, 0.2, 0.6, 0.95), **five)
        + product(rule="optlog", alpha=(-1.0, 0.0, 0.5, 1.0, 2.0), **five)
        + product(rule="token_v1", alpha=(0.0, 0.2, 0.4, 0.6), **five)
        + product(rule="token_v2", alpha=(0.1, 0.3, 0.5, 0.7, 0.9), **five)
        + product(rule="token_v3", alpha=(0.1, 0.3, 0.5, 0.7, 0.9), **five)
        + product(rule="token_v3", alpha=(0.3, 0.7), **others)
        + product(rule=("chow", "token_v2"), alpha=0.1, **others)
        + product(rule=("diff", "opt"), alpha=0.0, **others)
        + product(rule="learned", head="shipped:gsm_symbolic", alpha=0.6, **others)
        + product(rule="typical", alpha=0.6, **others)
        + product(rule="lossy", alpha=0.5, draft_length=(3, 8), temperature=1.0)
        + product(rule="spec", expert_top_p=0.9, draft_length=(3, 8), temperature=1.0)
        + product(rule="token_v3", alpha=(0.3, 0.7), verifier="block", **five)
        + product(rule=("lossy", "lenient"), alpha=(0.1, 0.3, 0.5, 0.8), **sampled)
        + product(rule="spec", expert_top_k=(2, 5), **sampled)
        + product(rule="spec", expert_top_p=(0.5, 0.9), **sampled)
        + product(rule="spec", expert_min_p=(0.1, 0.5), **sampled)
        + product(
            rule="bild", alpha=(2.0, 3.0, 5.0), fallback=(0.3, 0.6), draft_length=(5, 10), **both
        )
        + product(rule="mixture", alpha=(0.1, 0.3, 0.5), **five)
        + product(rule="typical", alpha=(0.1, 0.3, 0.6), **five)
        + product(rule="topk_relaxed", alpha=(0.5, 0.9), k=(2, 5), **five)
        + product(method="token_cascade", rule="chow", alpha=(0.1, 0.2, 0.4, 0.6), **both)
        + product(method="token_cascade", rule="chowlog", alpha=(0.25, 0.5, 1.0, 1.5), **both)
        + product(method="sequence_cascade", threshold=(-0.3, -0.2, -0.1, -0.05), **both)
    )
