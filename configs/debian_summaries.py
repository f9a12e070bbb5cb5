"""Synopses of Debian's package descriptions: an encoder-decoder pair trained from scratch.

    python scripts/train.py --config=configs/debian_summaries.py:expert \\
        --workdir=runs/summaries_expert
    python scripts/train.py --config=configs/debian_summaries.py:drafter \\
        --workdir=runs/summaries_drafter --config.train.distill_from=runs/summaries_expert
"""

import pathlib
import runpy

import ml_collections

_SAME = runpy.run_path(str(pathlib.Path(__file__).with_name("debian_en_de.py")))


def sweep() -> tuple[dict, ...]:
    """That of `debian_en_de.py`."""
    return _SAME["sweep"](head="shipped:debian_summaries")


def get_config(arg: str = "expert") -> ml_collections.ConfigDict:
    """`arg` names the model to train, expert or drafter: those of `debian_en_de.py`."""
    config = _SAME["get_config"](arg)
    config.task.name = "debian_summaries"
    config.train.update(num_steps=3_000 if arg == "expert" else 600, row_length=768)
    config.pair = "shipped:debian_summaries"
    config.evaluate.update(settings=sweep(), max_new_tokens=40)
    config.evaluate.splits = {"validation": 160, "test": 160}
    return config
