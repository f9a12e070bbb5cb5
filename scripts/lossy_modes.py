"""Says what engines' lossy modes sample from.

    python scripts/lossy_modes.py
    python scripts/lossy_modes.py --config=configs/lossy_modes.py --workdir=runs/lossy_modes

Without a workdir exactly, on small vocabularies: one row per mode, the distance of its sequences'
law from the expert's and from what it is said to sample, and of lossless rivals with as many tokens
per expert call. With a config and a workdir on a pair: the modes are measured, their direct twins,
and rivals whose strength is set to equal tokens per expert call on the validation split; the
verdicts are of the test split. Started again, only what is missing is measured; with the workdir
alone, nothing is. See docs/kernels.md.
"""

import sys

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to measure first, if anything.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results are.")
_PAIRS = flags.DEFINE_integer("pairs", 24, "Random pairs of models that a figure is the mean of.")


def main(argv):
    del argv
    from speccascade.lossy import beside, measuring, table

    if _WORKDIR.value is None:
        print(table.table(_PAIRS.value))
        return
    failed = measuring.measure(_CONFIG.value, _WORKDIR.value) if _CONFIG.value else []
    print(beside.report(_WORKDIR.value))
    if failed:
        sys.exit("\n".join([f"error: {len(failed)} rows failed:", *failed]))


if __name__ == "__main__":
    app.run(main)
