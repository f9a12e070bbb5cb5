"""Says what other rules would have done at positions of saved answers: nothing is decoded.

    python scripts/evaluate.py --config=configs/word_problems.py --workdir=runs/word_problems \\
        --save_distributions=32
    python scripts/replay.py --distributions=runs/word_problems --rules=token_v3,opt \\
        --alpha=0,0.2,0.4

Of every rule and alpha: how often a draft is rejected and how much is deferred, exactly at the
recorded positions (between bounds where only some tokens were saved), and an estimate of the tokens
per expert call, beside what decoding measured. Without --rules those that the workdir measured. It
also reads a file of another engine: JSON lines, see docs/replay.md.
"""

from absl import flags

from speccascade.runtime import app

_DISTRIBUTIONS = flags.DEFINE_string(
    "distributions", None, 'WORKDIR or "WORKDIR#SETTING" of scripts/evaluate.py, or a file.'
)
_RULES = flags.DEFINE_list("rules", "", "Rules, or `all`.")
_ALPHA = flags.DEFINE_list("alpha", "0.1,0.3,0.5", "Of the rules that have an alpha.")
_KNOBS = flags.DEFINE_string(
    "knobs", "{}", 'Further fields of the settings: {"k": 3, "expert_top_p": 0.9}.'
)
_DRAFT_LENGTH = flags.DEFINE_list("draft_length", "4", "N, tokens per draft.")
_TEMPERATURE = flags.DEFINE_float(
    "temperature", None, "That of the recorded answers if not given, of a file 0."
)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Of a workdir.")
_OUT = flags.DEFINE_string("out", None, "A file for the same position by position, JSON lines.")
flags.mark_flags_as_required(["distributions"])


def main(argv):
    del argv
    from speccascade.replay import replaying

    options = replaying.from_flags(
        rules=_RULES.value,
        alphas=_ALPHA.value,
        draft_lengths=_DRAFT_LENGTH.value,
        temperature=_TEMPERATURE.value,
        knobs=_KNOBS.value,
        split=_SPLIT.value,
        out=_OUT.value,
    )
    print(replaying.replay(_DISTRIBUTIONS.value, options), end="")


if __name__ == "__main__":
    app.run(main)
