"""Chooses rule, alpha and N with a promise that it then holds to on other examples.

    python scripts/tune.py --config=CONFIG.py --workdir=DIR --max_quality_loss=X

Measures the config's sweep on the validation split, certifies with the stated confidence which
settings lose at most X of the expert's quality, takes the fastest of them, and then says whether
the promise held on the test split, of which nothing else is measured. With --min_speedup=S it
certifies which settings are S times as fast as the expert, and takes the best of them.

DIR may be that of scripts/evaluate.py; started again, only what is missing is measured. The summary
is printed and written to DIR/tune.md, everything behind it to DIR/tune.json.
"""

import sys

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to choose from; see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go.")
_MAX_QUALITY_LOSS = flags.DEFINE_float(
    "max_quality_loss",
    None,
    "How much lower the quality may be than the expert's, in the task's own score units: of 1 for "
    "exact match, F1 and passed tests (0.02 is two points), of 100 for BLEU and ROUGE.",
)
_MIN_SPEEDUP = flags.DEFINE_float(
    "min_speedup", None, "How many times as fast as the expert's own decoding, per token."
)
_CONFIDENCE = flags.DEFINE_float("confidence", 0.95, "Of the promise, between 0 and 1.")
_TEMPERATURE = flags.DEFINE_float(
    "temperature", None, "Which of the sweep's settings may be chosen; needed if it has several."
)
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes",
    [],
    "Says for batches of so many rows, too, which setting that keeps --max_quality_loss is the "
    "fastest, and whether any draft pays there, from the models' passes timed now: 1,8,32.",
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Check everything and say what is to do.")
_READ_WEIGHTS = flags.DEFINE_bool(
    "read_weights", False, "Make the pair's hash of all bytes again, not trusting the one kept."
)
app.define_distributed()
app.define_native()
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    del argv
    from speccascade.pairs import kept_hashes
    from speccascade.sharding import hosts
    from speccascade.tuning import tuner

    if _READ_WEIGHTS.value:
        kept_hashes.forget()
    if _DRY_RUN.value:
        described = tuner.describe(_CONFIG.value, _WORKDIR.value, _TEMPERATURE.value)
        if hosts.is_first():
            print(described)
        return
    tuned = tuner.tune(
        _CONFIG.value,
        _WORKDIR.value,
        max_quality_loss=_MAX_QUALITY_LOSS.value,
        min_speedup=_MIN_SPEEDUP.value,
        confidence=_CONFIDENCE.value,
        temperature=_TEMPERATURE.value,
        batch_sizes=_BATCH_SIZES.value,
    )
    if hosts.is_first():
        print(tuned.text)
    if tuned.failed:
        sys.exit("\n".join([f"error: {len(tuned.failed)} rows failed:", *tuned.failed]))


if __name__ == "__main__":
    app.run(main)
