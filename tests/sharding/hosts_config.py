"""A sweep over a tiny pair on a mesh of two by two devices: its rows end in the middle of a batch,
and the last batch has rows for one half of `data` only."""

from speccascade.inference.sweep import product
from tests import tiny_pair


def get_config(pair_directory):
    config = tiny_pair.get_config(pair_directory)
    config.mesh = {"data": 2, "model": 2, "drafter": "replicated"}
    config.evaluate.settings = product(
        rule="token_v3", alpha=(0.2, 0.8), draft_length=2, temperature=1.0
    ) + product(method="sequence_cascade", threshold=-2.0)
    config.evaluate.splits = {"test": 5}
    config.evaluate.batch_size = 4
    config.evaluate.timing = {"num_examples": 1, "trials": 1}
    return config
