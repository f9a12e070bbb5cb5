"""Gemma-2 2B drafts for 9B: one of the paper's pairs, N = 1.

    python scripts/tpu_plan.py --config=configs/paper/gemma2_2b_9b.py --topology=v5e:4x4
    python scripts/evaluate.py --distributed --config=configs/paper/gemma2_2b_9b.py:gsm8k \\
        --workdir=gs://BUCKET/runs/NAME

Both see examples of the task and are not trained. Where nothing is to be timed, which is long here,
`--config.evaluate.timing.num_examples=0`.

`--dry_run` says what all of it costs. For less, `gsm8k,quick`, or
`--config.evaluate.settings='({"method": "autoregressive_expert"},
{"rule": "spec", "draft_length": 1})'`, or fewer examples, `--config.evaluate.splits.test=100`.
"""

import pathlib
import runpy

import ml_collections

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("common.py")))
sweep = paper["gemma2_sweep"]


def get_config(task: str = "") -> ml_collections.ConfigDict:
    """`task` is one of the paper's, with ",quick" behind it for few settings; none to plan."""
    return paper["gemma2"]("google/gemma-2-9b", task)
