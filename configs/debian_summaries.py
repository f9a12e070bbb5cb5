"""Synopses of Debian's package descriptions: an encoder-decoder pair that began as translators.

    python scripts/evaluate.py --config=configs/debian_summaries.py --workdir=runs/summaries
    python scripts/report.py --workdir=runs/summaries

The pair ships with the package, and the grid is measured on that one. It is what

    bash scripts/train_pair.sh configs/debian_summaries.py runs/summaries_pair --rounded

makes, `--config.pair=runs/summaries_pair/pair`. Both models begin from those of `debian_en_de.py`,
which know the same descriptions and have their vocabulary. Expected: a loss of 2.74 per token of
the validation split for the expert (34 minutes on two cores of an AMD EPYC) and of 3.14 for the
drafter (6 minutes); what comes of the grid is in docs/summaries.md.
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
    config.train.update(
        init_from=f"shipped:debian_en_de/{arg}",
        num_steps=2_500 if arg == "expert" else 800,
        learning_rate=2e-3,
        dropout=0.1 if arg == "expert" else 0.0,
        row_length=768,
        eval_every=500,
    )
    config.pair = "shipped:debian_summaries"
    config.evaluate.update(settings=sweep(), max_new_tokens=40)
    config.evaluate.splits = {"validation": 320, "test": 320}
    return config
