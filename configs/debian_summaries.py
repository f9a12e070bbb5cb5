"""Synopses of Debian's package descriptions: an encoder-decoder pair that began as translators.

    python scripts/evaluate.py --config=configs/debian_summaries.py --workdir=runs/summaries
    python scripts/report.py --workdir=runs/summaries

The pair ships with the package, and the grid is measured on that one. It is what

    bash scripts/train_pair.sh configs/debian_summaries.py runs/summaries_pair --rounded

makes, and `--config=configs/debian_summaries.py:runs/summaries_pair/pair` measures. Both models
begin from those of `debian_en_de.py`, which know the same descriptions and have their vocabulary.
Expected: a loss of 2.74 per token of the validation split for the expert (34 minutes on two cores
of an AMD EPYC) and of 3.14 for the drafter (6 minutes); what comes of the grid is in
docs/summaries.md.
"""

import pathlib
import runpy

import ml_collections

_SAME = runpy.run_path(str(pathlib.Path(__file__).with_name("debian_en_de.py")))


def sweep(head: str = "shipped:debian_summaries") -> tuple[dict, ...]:
    """That of `debian_en_de.py`."""
    return _SAME["sweep"](head)


def get_config(arg: str = "expert") -> ml_collections.ConfigDict:
    """`arg` and both models are those of `debian_en_de.py`."""
    config = _SAME["get_config"](arg)
    config.task.name = "debian_summaries"
    role = "drafter" if arg == "drafter" else "expert"
    config.train.update(
        init_from=f"shipped:debian_en_de/{role}",
        num_steps={"expert": 2_500, "drafter": 800}[role],
        learning_rate=2e-3,
        dropout={"expert": 0.1, "drafter": 0.0}[role],
        row_length=768,
        eval_every=500,
    )
    config.evaluate.max_new_tokens = 40
    if arg == role:
        config.pair = "shipped:debian_summaries"
        config.evaluate.settings = sweep()
    config.evaluate.splits = {"validation": 240, "test": 240}
    return config
