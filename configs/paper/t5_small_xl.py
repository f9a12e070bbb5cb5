"""T5 v1.1 small drafts for XL: one of the paper's pairs, N = 5, fine-tuned per task there.

    python scripts/tpu_plan.py --config=configs/paper/t5_small_xl.py --topology=v4:2x2x1
    python scripts/paper.py --distributed --config=configs/paper/t5_small_xl.py:wmt14 \\
        --config.task.path=DIR --workdir=gs://BUCKET/runs/NAME

The second fine-tunes both models, measures and reports. `scripts/evaluate.py` measures a pair that
is fine-tuned already: `--config.pair.drafter=DIR --config.pair.expert=DIR`. The hub's v1.1, which
stand here, have been taught no task, and their own answers mean nothing.

`--dry_run` says what all of it costs. For less, `wmt14,quick`, or
`--config.evaluate.settings='({"method": "autoregressive_expert"},
{"rule": "spec", "draft_length": 5})'`, or fewer examples, `--config.evaluate.splits.test=100`.
"""

import pathlib
import runpy

import ml_collections

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("common.py")))
sweep = paper["t5_sweep"]


def get_config(task: str = "") -> ml_collections.ConfigDict:
    """`task` is one of the paper's, with ",quick" behind it for few settings; none to plan."""
    return paper["t5"]("google/t5-v1_1-xl", task)
