"""Says what a faster way of decoding costs in quality, from answers that any engine saved.

    python scripts/certify.py --before=exact.jsonl --after=relaxed.jsonl --max_quality_loss=0.02

Each setting is said to lose at most 0.02 with 95 % confidence, to be worse, or not to be told apart
and how many more prompts would tell; with the speed-up and its interval where the files have
seconds. Several --after are settings to choose from: none of them is certified by chance alone.
Nothing is decoded and nothing is written. See docs/certify.md.

Files are JSON lines of one of these forms, found out by their fields:

    plain            id, and text or score; maybe tokens, seconds, acceptance, sample
    Spec-Bench       question_id, choices[0].turns, new_tokens, wall_time, accept_lengths
    lm-eval          --log_samples: doc_id, filter, filtered_resps, metrics
    a workdir        WORKDIR or "WORKDIR#SETTING" of scripts/evaluate.py; or its answers/*.jsonl.gz

Answers are scored by one of

    the files' own scores             --score=exact_match  (the only one, if none is named)
    accepted answers and a metric     --references=FILE --metric=f1  (lines of id and answers)
    a task of this project            --task=gsm8k --task_path=DIR
    the answers before                --metric=same_text  (the loss is the share that differs)

Several samples for a prompt stand in files with commas between, or have a field `sample`.
"""

from absl import flags

from speccascade.runtime import app

_BEFORE = flags.DEFINE_string("before", None, "Answers of the decoding that is compared with.")
_AFTER = flags.DEFINE_multi_string("after", None, "Answers of a setting; may be given repeatedly.")
_MAX_QUALITY_LOSS = flags.DEFINE_float(
    "max_quality_loss",
    None,
    "How much lower the quality may be, in the score's own units: of 1 for exact match, F1 and "
    "passed tests (0.02 is two points), of 100 for BLEU and ROUGE.",
)
_CONFIDENCE = flags.DEFINE_float("confidence", 0.95, "Of the verdicts, between 0 and 1.")
_TASK = flags.DEFINE_string("task", None, "Score texts as this task does, by its examples' ids.")
_TASK_PATH = flags.DEFINE_string("task_path", None, "The task's `path`, where it reads no hub.")
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["train", "validation", "test"], "Of the task, or of a workdir's rows."
)
_REFERENCES = flags.DEFINE_string("references", None, "JSON lines of `id` and `answers`.")
_METRIC = flags.DEFINE_string(
    "metric",
    None,
    "contains, exact_match, f1, final_number, rouge_2 or bleu, of --references or of "
    "--task=questions; or same_text.",
)
_SCORE = flags.DEFINE_string("score", None, "The field of the files' own scores.")
_FULL_SCORE = flags.DEFINE_float(
    "full_score", 1.0, "Of --score: a perfect answer's; the worst is 0."
)
_FILTER = flags.DEFINE_string("filter", None, "Of lm-eval's files: whose outcomes are read.")
_ORDERED = flags.DEFINE_bool(
    "ordered",
    False,
    "Test the settings in the order given, up to the first failure: more power where the order was "
    "chosen without looking, as from the most careful threshold to the boldest.",
)
flags.mark_flags_as_required(["before", "after", "max_quality_loss"])


def main(argv):
    del argv
    from speccascade.certify.certification import Options, certify

    options = Options(
        max_quality_loss=_MAX_QUALITY_LOSS.value,
        confidence=_CONFIDENCE.value,
        task=_TASK.value,
        task_path=_TASK_PATH.value,
        split=_SPLIT.value,
        references=_REFERENCES.value,
        metric=_METRIC.value,
        score=_SCORE.value,
        full_score=_FULL_SCORE.value,
        filter=_FILTER.value,
        ordered=_ORDERED.value,
    )
    print(certify(_BEFORE.value, _AFTER.value, options), end="")


if __name__ == "__main__":
    app.run(main)
