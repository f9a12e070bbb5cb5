"""A published T5 v1.1, fine-tuned for a task of the paper's: one model, without what follows.

    python scripts/train.py --config=configs/paper/t5_fine_tuned.py:xsum \\
        --workdir=runs/t5_xl_xsum --config.train.init_from=google/t5-v1_1-xl
    python scripts/train.py --config=configs/paper/t5_fine_tuned.py:xsum \\
        --workdir=runs/t5_small_xsum --config.train.init_from=google/t5-v1_1-small \\
        --config.train.distill_from=runs/t5_xl_xsum

The workdirs are then the expert and the drafter of configs/paper/t5_small_xl.py. scripts/paper.py
does both, and measures the pair. No published weights were at hand where this was written: what was
run is a random checkpoint of v1.1's form.
"""

import pathlib
import runpy

import ml_collections
from ml_collections import config_dict

from speccascade.errors import UserError

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("common.py")))


def get_config(task: str = "xsum") -> ml_collections.ConfigDict:
    """`task` is one of the paper's for T5."""
    if task not in paper["TASKS"]["t5"]:
        raise UserError(f"unknown task {task!r}; choose one of: {', '.join(paper['TASKS']['t5'])}")
    config = ml_collections.ConfigDict(paper["fine_tuning"](1024, 128))
    config.task = {"name": task, "format": "t5", "path": config_dict.placeholder(str)}
    config.train.init_from = "google/t5-v1_1-small"
    return config
