"""A published T5 v1.1, fine-tuned for a task of the paper's.

    python scripts/train.py --config=configs/t5_fine_tuned.py:xsum --workdir=runs/t5_xl_xsum \\
        --config.train.init_from=google/t5-v1_1-xl
    python scripts/train.py --config=configs/t5_fine_tuned.py:xsum --workdir=runs/t5_small_xsum \\
        --config.train.init_from=google/t5-v1_1-small \\
        --config.train.distill_from=runs/t5_xl_xsum

The workdirs are then the expert and the drafter of configs/t5_small_xl.py. Adafactor at a constant
1e-3 relative to each parameter, with dropout 0.1 and batches of 128 rows, is how T5 is fine-tuned
(Raffel et al. 2020); how long the paper does is not known. No published weights were at hand where
this was written: what was run is a random checkpoint of v1.1's form (tests/training).
"""

import pathlib
import runpy

import ml_collections
from ml_collections import config_dict

from speccascade.errors import UserError

paper = runpy.run_path(str(pathlib.Path(__file__).with_name("paper.py")))


def get_config(task: str = "xsum") -> ml_collections.ConfigDict:
    """`task` is one of the paper's for T5."""
    if task not in paper["TASKS"]["t5"]:
        raise UserError(f"unknown task {task!r}; choose one of: {', '.join(paper['TASKS']['t5'])}")
    config = ml_collections.ConfigDict()
    config.task = {"name": task, "format": "t5", "path": config_dict.placeholder(str)}
    config.model = {"dtype": "bfloat16"}  # its form is that of `init_from`
    config.mesh = {"data": -1}  # small models; large ones are cut: {"data": 1, "fsdp": -1}
    config.train = {
        "seed": 0,
        "init_from": "google/t5-v1_1-small",
        "num_steps": 20_000,
        "batch_size": 128,
        "accumulate": 1,
        "remat": True,
        "row_length": 1024 + 128,
        "sort_by_length": True,
        "optimizer": "adafactor",
        "schedule": "constant",
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "prompt_weight": 0.0,
        "dropout": 0.1,
        "log_every": 100,
        "eval_every": 5_000,
        "checkpoint_every": 1_000,
        "distill_from": "",
        "distill_loss": "forward_kl",
        "distill_weight": 0.5,
    }
    return config
