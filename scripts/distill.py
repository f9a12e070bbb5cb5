"""Makes a drafter for an expert: `python scripts/distill.py --config=CONFIG.py --workdir=DIR`.

The expert writes texts, and a few of its own layers, with a head over the token ids that it used
most, learn to draft them (DistillSpec, Zhou et al. 2024). The config says which expert, what it is
asked, which layers, and how long they learn. It works for every model that the importer knows, and
for those that scripts/train.py trains. Started again with the same arguments, it goes on where it
stopped.

The workdir is then the drafter of any pair with that expert:

    config.pair = {"drafter": "runs/smollm2_drafter", "expert": EXPERT}
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to make; see configs/smollm2.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where texts, checkpoints and metrics go.")
flags.mark_flags_as_required(["config", "workdir"])
app.define_distributed()


def main(argv):
    del argv
    from speccascade.distillation.training import distill
    from speccascade.sharding import hosts

    figures = distill(_CONFIG.value, _WORKDIR.value)
    if hosts.is_first():
        print(", ".join(f"{name} {value:.4f}" for name, value in figures.items()))


if __name__ == "__main__":
    app.run(main)
