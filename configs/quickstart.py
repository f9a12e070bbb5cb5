"""What a cascade gains, in a minute: synopses of package descriptions by a pair that ships.

    python scripts/evaluate.py --config=configs/quickstart.py --workdir=runs/quickstart
    python scripts/report.py --workdir=runs/quickstart --brief

`scripts/quickstart.sh` runs these two. The whole experiment, on descriptions that are fetched, is
`debian_summaries.py`; the 64 of `descriptions.jsonl` were written for this one, and are enough to
see tokens per expert call apart, not qualities.
"""

import os
import pathlib

import ml_collections

from speccascade.inference.sweep import product

DESCRIPTIONS = pathlib.Path(__file__).with_name("descriptions.jsonl")


def sweep() -> tuple[dict, ...]:
    """Either model alone, lossless decoding, and two rules of a cascade; greedy."""
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"))
        + product(rule="spec", draft_length=5)
        + product(rule="token_v3", alpha=(0.5, 0.8), draft_length=5)
        + product(rule="opt", alpha=0.0, draft_length=5)
    )


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    # Relative, so that a checkout may move with the workdirs in it.
    config.task = {"name": "questions", "path": os.path.relpath(DESCRIPTIONS), "metric": "rouge_2"}
    config.pair = "shipped:debian_summaries"
    config.evaluate = {
        "settings": sweep(),
        "splits": {"validation": 32, "test": 32},
        "max_new_tokens": 40,
        "batch_size": 32,
        "timing": {"num_examples": 16, "trials": 3},
    }
    return config
