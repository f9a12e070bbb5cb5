"""Runs an experiment of the paper's from its published models to its tables, in one command:

  python scripts/paper.py --config=configs/paper/t5_small_large.py:xsum \\
      --workdir=gs://BUCKET/xsum --config.task.path=DIR --distributed

fine-tunes the expert, then the drafter, measures every rule on the two, and writes the report. Each
stage has a folder in the workdir. Started again with the same arguments, it goes on where it
stopped. `:xsum,quick` measures the few settings that answer the main question.

`--dry_run` says what each stage needs on the devices at hand; with --topology=v4:2x2x4 it also
compiles training, prefill and decoding of the config's models for that slice, as
scripts/tpu_plan.py does.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment; see configs/paper/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the stages have their folders.")
_STAGES = flags.DEFINE_list(
    "stages", "expert,drafter,sweep,report", "Which stages to run, if not all."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Only say what is done, what is left, and what that needs."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "With --dry_run: a slice to plan for, as scripts/tpu_plan.py takes it."
)
app.define_distributed()
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    del argv
    from functools import partial

    from speccascade import experiment
    from speccascade.plan import planning
    from speccascade.sharding import hosts

    if _DRY_RUN.value:
        if _TOPOLOGY.value:
            planning.run(_CONFIG.value, print, slices=_TOPOLOGY.value)
        told = experiment.describe(_CONFIG.value, _WORKDIR.value)
        if hosts.is_first():
            print(told)
        return
    say = partial(print, flush=True)
    experiment.run(_CONFIG.value, _WORKDIR.value, _STAGES.value, say)


if __name__ == "__main__":
    app.run(main)
