"""Shows, token by token, who wrote an answer: drafter or expert, under each of several rules.

    python scripts/trace.py --config=configs/word_problems.py --rules=spec,token_v3,opt \\
        --prompt="On Sunday, John wants to exercise for 2 the amount of time he did on Thursday \\
    and Tuesday combined. On Tuesday he exercised for 36 minutes. On Thursday he exercised for 28 \\
    minutes. How many minutes does he have to exercise on Sunday to reach his goal?" \\
        --html=trace.html

The same prompt is decoded under each rule, with the same random draws. Each position comes with
the probabilities that drafter (q), expert (p) and target (pi) give its token, with the chance that
the draft is accepted, and with what strict, lossless verification would have done with the same
draft. A rule without --alpha takes the middle of the config's own sweep of it. With --html the
same becomes one web page that needs nothing else.

Expected of the example: spec is right with 4.36 tokens per expert call. opt keeps a draft that
strict verification cuts at a wrong digit, goes on from it, and is wrong with 4.80.
"""

import shutil
import sys

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "Names the pair; see configs/.")
_PROMPT = flags.DEFINE_string("prompt", None, "The prompt.")
_RULES = flags.DEFINE_list("rules", "spec,token_v3,opt", "The rules, in the order to be shown.")
_ALPHA = flags.DEFINE_list(
    "alpha", "", "One for all rules that have an alpha, or one for each of these in their order."
)
_KNOBS = flags.DEFINE_string(
    "knobs", "{}", 'Further fields of the settings: {"k": 3, "expert_top_p": 0.9}.'
)
_DRAFT_LENGTH = flags.DEFINE_integer("draft_length", 5, "N, tokens per draft.")
_VERIFIER = flags.DEFINE_string("verifier", None, "token or block.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 for greedy.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the random draws.")
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "The most tokens of an answer.")
_NUMBERS = flags.DEFINE_bool(
    "numbers", True, "Whether the terminal shows every position's numbers."
)
_HTML = flags.DEFINE_string("html", None, "Where a web page of the same goes.")
flags.mark_flags_as_required(["config"])


def main(argv):
    del argv
    from speccascade.trace import terminal
    from speccascade.trace.flags import from_flags

    given = (_DRAFT_LENGTH, _VERIFIER, _TEMPERATURE, _SEED)
    comparison = from_flags(
        _CONFIG.value,
        prompt=_PROMPT.value,
        names=_RULES.value,
        alphas=_ALPHA.value,
        knobs=_KNOBS.value,
        fields={flag.name: flag.value for flag in given},
        max_new_tokens=_MAX_NEW_TOKENS.value,
        html=_HTML.value,
    )
    sys.stdout.reconfigure(errors="replace")  # text of any script, whatever the terminal takes
    print(
        terminal.render(
            comparison,
            colour=terminal.wants_colour(sys.stdout),
            numbers=_NUMBERS.value,
            width=shutil.get_terminal_size((100, 24)).columns,
        ),
        end="",
    )
    if _HTML.value is not None:
        print(f"\nWritten to {_HTML.value}; open it in a browser.")


if __name__ == "__main__":
    app.run(main)
