"""The distillation of `tiny.py` with two rounds in which the drafter writes."""

import ml_collections

from tests.distillation import tiny


def get_config(source: str = "") -> ml_collections.ConfigDict:
    """`source` is the expert."""
    config = tiny.get_config(source)
    config.train.log_every = 1
    config.rounds = {"every": 4, "num_texts": 12, "share": 0.5}
    return config
