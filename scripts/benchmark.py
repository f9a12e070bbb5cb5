"""How fast a pair decodes: `python scripts/benchmark.py --config=CONFIG.py`, as Markdown.

CONFIG.py is configs/quickstart.py for the shipped pair or configs/synthetic.py for a larger one
with random weights. Nothing else should run on the machine meanwhile.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to measure; see configs/.")
_PROFILE = flags.DEFINE_string("profile", "", "A directory to write a profiler trace to.")
flags.mark_flags_as_required(["config"])


def main(argv):
    del argv
    from speccascade.benchmark import run

    run.run(_CONFIG.value, print, profile=_PROFILE.value)


if __name__ == "__main__":
    app.run(main)
