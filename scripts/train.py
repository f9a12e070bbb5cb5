"""Trains one model: `python scripts/train.py --config=CONFIG.py:MODEL --workdir=DIR`.

Started again with the same arguments, it goes on where it stopped.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train; see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and metrics go.")
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Write a profiler trace of a few steps to WORKDIR/profile."
)
flags.mark_flags_as_required(["config", "workdir"])
app.define_distributed()


def main(argv):
    del argv
    from speccascade.sharding import hosts
    from speccascade.training import loop

    figures = loop.train(_CONFIG.value, _WORKDIR.value, _PROFILE.value)
    if hosts.is_first():
        print(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))


if __name__ == "__main__":
    app.run(main)
