"""Says what engines' lossy modes sample from, exactly, on small vocabularies.

    python scripts/lossy_modes.py

Prints one row per mode: the distance of its sequences' law from the expert's and from what it is
said to sample, and of lossless rivals with as many tokens per expert call. See docs/kernels.md.
"""

from absl import flags

from speccascade.runtime import app

_PAIRS = flags.DEFINE_integer("pairs", 24, "Random pairs of models that a figure is the mean of.")


def main(argv):
    del argv
    from speccascade.lossy import table

    print(table.table(_PAIRS.value))


if __name__ == "__main__":
    app.run(main)
