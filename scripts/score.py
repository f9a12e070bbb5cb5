"""Scores kept answers anew: `python scripts/score.py --workdir=DIR`.

After a metric was mended, or with another one (--config=CONFIG.py, whose `task` section counts):
nothing is decoded and no model is read. Prints which qualities changed; then run scripts/report.py.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of scripts/evaluate.py.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Whose `task` section to score by; by default the workdir's own."
)
flags.mark_flags_as_required(["workdir"])


def main(argv):
    del argv
    from speccascade.evaluate import score

    options = _CONFIG.value.task.to_dict() if _CONFIG.value else None
    print(score.score(_WORKDIR.value, options))


if __name__ == "__main__":
    app.run(main)
