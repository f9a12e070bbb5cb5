"""Measures a sweep: `python scripts/evaluate.py --config=CONFIG.py --workdir=DIR`.

Rows are appended to DIR/results.jsonl as settings finish; started again, it does only what is
missing. Several processes, over hosts or on one, measure as one program with --distributed: see
scripts/launch.py.
"""

import sys

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to measure; see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Check everything, say what is to do and about how long it takes."
)
_PROBE = flags.DEFINE_bool(
    "probe", False, "With --dry_run: measure how long it takes by a short probe, which compiles."
)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profiler trace to WORKDIR/profile.")
_SAVE_DISTRIBUTIONS = flags.DEFINE_string(
    "save_distributions",
    None,
    "Save what both models say at every token of answers, for scripts/replay.py: of how many of "
    "the most probable tokens (32), or `whole`.",
)
_DISTRIBUTIONS_OF = flags.DEFINE_multi_string(
    "distributions_of",
    [],
    "Whose answers: a setting, or words that tell it, 'spec N=4 T=0'; those of the expert alone if "
    "not given.",
)
_READ_WEIGHTS = flags.DEFINE_bool(
    "read_weights", False, "Make the pair's hash of all bytes again, not trusting the one kept."
)
app.define_distributed()
app.define_native()
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    del argv
    from speccascade.evaluate import evaluation, forecast, prepared, recording
    from speccascade.pairs import kept_hashes
    from speccascade.sharding import hosts

    if _READ_WEIGHTS.value:
        kept_hashes.forget()
    saved = recording.from_flags(_SAVE_DISTRIBUTIONS.value, _DISTRIBUTIONS_OF.value)
    if _DRY_RUN.value:
        sweep = prepared.prepare(_CONFIG.value, weights=_PROBE.value, saved=saved)
        described = forecast.describe(sweep, _WORKDIR.value, _PROBE.value)
        if hosts.is_first():
            print(described, flush=True)
        return
    outcome = evaluation.evaluate(
        _CONFIG.value, _WORKDIR.value, profile=_PROFILE.value, saved=saved
    )
    workdir = _WORKDIR.value
    if hosts.is_first():
        print(f"{outcome.measured} rows measured; now run scripts/report.py --workdir={workdir}")
        if saved:
            print(
                f"distributions of {outcome.recorded} answers saved; now run scripts/replay.py "
                f"--distributions={workdir}"
            )
    if outcome.failed:
        sys.exit("\n".join([f"error: {len(outcome.failed)} rows failed:", *outcome.failed]))


if __name__ == "__main__":
    app.run(main)
