"""A short sweep of word problems: a few rules, two draft lengths, greedy and sampled.

    python scripts/evaluate.py --config=configs/word_problems.py --workdir=runs/word_problems
    python scripts/report.py --workdir=runs/word_problems

About three minutes on two cores. Expected: lossless decoding at 1.3 times the expert's speed, and
no rule told apart from it. The whole experiment is `gsm_symbolic.py`.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product


def sweep() -> tuple[dict, ...]:
    """A few rules, two draft lengths, greedy and sampled."""
    hot = {"temperature": (0.0, 1.0)}
    return (
        product(method=("autoregressive_expert", "autoregressive_drafter"), **hot)
        + product(rule="spec", draft_length=(4, 8), **hot)
        + product(rule="chow", alpha=(0.05, 0.2, 0.6), draft_length=8, **hot)
        + product(rule="opt", alpha=(0.1, 0.4, 0.8), draft_length=8, **hot)
        + product(rule="token_v3", alpha=(0.4, 0.8), draft_length=(4, 8), **hot)
        + product(rule="bild", alpha=2.0, fallback=0.6, draft_length=8, **hot)
        # At temperature 0 it is spec.
        + product(rule="lossy", alpha=(0.5, 0.9), draft_length=8, temperature=1.0)
        + product(method="sequence_cascade", threshold=(-0.1, -0.05), **hot)
    )


def get_config() -> ml_collections.ConfigDict:
    """The task is that of `gsm_symbolic.py`; only the sweep is another."""
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name("gsm_symbolic.py")))
    config = ml_collections.ConfigDict({"task": whole["get_config"]().task})
    config.pair = "shipped:gsm_symbolic"
    config.evaluate = {
        "settings": sweep(),
        "splits": {"validation": 96, "test": 96},
        "max_new_tokens": 64,
        "batch_size": 64,
        "timing": {"num_examples": 6, "trials": 3},
    }
    synthetic = runpy.run_path(str(pathlib.Path(__file__).with_name("synthetic.py")))
    config.benchmark = {
        "settings": product(rule="spec", draft_length=(4, 8))
        + synthetic["every_rule"](draft_length=5),
        "batch_sizes": (1, 8),
        "num_examples": 3,
        "max_new_tokens": 64,
        "step_tokens": (1, 2, 4, 8, 16),
        "step_repeats": 64,
        "trials": 3,
        "minutes": 10,
    }
    return config
