"""Cascades of three beside those of two: word problems, a model between the two shipped ones.

    python scripts/train.py --config=configs/gsm_symbolic.py:middle --workdir=runs/middle \\
        --config.train.distill_from=shipped:gsm_symbolic/expert
    python scripts/evaluate.py --config=configs/three_models.py --workdir=runs/three_models
    python scripts/report.py --workdir=runs/three_models

The training takes 12 minutes on a shared core of an AMD EPYC and ends at a loss of 0.024 per token
of the validation split (72 % of its answers right in every token, given those before). Expected of
the grid (5 minutes): three models are slower than two, 1.3 against 1.9 times the expert's speed.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product


def sweep() -> tuple[dict, ...]:
    """Two models and three, by lossless decoding and the token rule, at the best draft lengths."""
    both = {"temperature": (0.0, 1.0)}
    inner = {"middle_draft_length": 3, **both}
    token = {"middle_rule": "token_v3", "middle_alpha": (0.1, 0.3)}
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"), **both)
        + product(rule="spec", draft_length=(3, 5, 8, 12), **both)
        + product(rule="token_v3", alpha=(0.1, 0.3, 0.5), draft_length=(5, 8), **both)
        + product(rule="spec", middle_rule="spec", draft_length=(5, 8, 12), **inner)
        + product(rule="spec", draft_length=(8, 12), **token, **inner)
        + product(rule="token_v3", alpha=(0.1, 0.3, 0.5), draft_length=8, **token, **inner)
    )


def get_config() -> ml_collections.ConfigDict:
    """The task is that of `word_problems.py`, the sizes those of `gsm_symbolic.py`."""
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name("word_problems.py")))
    config = whole["get_config"]()
    del config.benchmark, config.pair
    config.evaluate.settings = sweep()
    config.evaluate.splits = {"validation": 128, "test": 128}
    config.evaluate.timing.num_examples = 16
    config.pair = {
        "drafter": "shipped:gsm_symbolic/drafter",
        "middle": "runs/middle",
        "expert": "shipped:gsm_symbolic/expert",
    }
    return config
