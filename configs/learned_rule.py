"""The learned deferral rule beside those whose estimate it replaces, on word problems.

    python scripts/evaluate.py --config=configs/learned_rule.py --workdir=runs/learned_rule
    python scripts/report.py --workdir=runs/learned_rule

The shipped head is what this wrote, and another one is the config's argument:

    python scripts/learn_rule.py --config=configs/word_problems.py \\
        --num_examples=2048 --out=HEAD.json
    python scripts/evaluate.py --config=configs/learned_rule.py:HEAD.json --workdir=runs/mine

What to expect is in docs/learned_rule.md.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product


def sweep(head: str = "shipped:gsm_symbolic") -> tuple[dict, ...]:
    """The rules that estimate which model is right, over alpha, and lossless decoding."""
    both = {"draft_length": 8, "temperature": (0.0, 1.0)}
    alphas = (-0.5, 0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
    return (
        product(method="autoregressive_expert", temperature=(0.0, 1.0))
        + product(rule="spec", **both)
        + product(rule=("diff", "opt"), alpha=alphas, **both)
        + product(rule="learned", head=head, alpha=alphas, **both)
    )


def get_config(head: str = "shipped:gsm_symbolic") -> ml_collections.ConfigDict:
    """`head` names the head: a file that scripts/learn_rule.py wrote."""
    whole = runpy.run_path(str(pathlib.Path(__file__).with_name("word_problems.py")))
    config = whole["get_config"]()
    del config.benchmark
    config.evaluate.settings = sweep(head)
    config.evaluate.splits = {"validation": 128, "test": 128}
    return config
