"""Says what engines' lossy modes sample from.

    python scripts/lossy_modes.py
    python scripts/evaluate.py --config=configs/lossy_modes.py --workdir=runs/lossy_modes
    python scripts/lossy_modes.py --workdir=runs/lossy_modes

Without a workdir exactly, on small vocabularies: one row per mode, the distance of its sequences'
law from the expert's and from what it is said to sample, and of lossless rivals with as many tokens
per expert call. With one, the modes measured there beside rivals as fast. See docs/kernels.md.
"""

from absl import flags

from speccascade.runtime import app

_WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of scripts/evaluate.py.")
_PAIRS = flags.DEFINE_integer("pairs", 24, "Random pairs of models that a figure is the mean of.")


def main(argv):
    del argv
    from speccascade.lossy import beside, table

    print(beside.table(_WORKDIR.value) if _WORKDIR.value else table.table(_PAIRS.value))


if __name__ == "__main__":
    app.run(main)
