"""Answers prompts with one rule.

    python scripts/generate.py --config=configs/word_problems.py --prompt="..." \\
        --rule=token_v3 --alpha=0.3 --draft_length=5

Prompts come from the command line or, one per line, from a file. Every answer is followed by a
line of its statistics as JSON.
"""

import json

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "Names the pair; see configs/.")
_PROMPT = flags.DEFINE_string("prompt", None, "A prompt.")
_PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, "A file of prompts, one per line.")
_METHOD = flags.DEFINE_string(
    "method", None, "kernel, autoregressive_expert, ...; speculative if not given."
)
_RULE = flags.DEFINE_string("rule", None, "The deferral rule; spec where no method is given.")
_ALPHA = flags.DEFINE_float("alpha", None, "The rule's alpha.")
_KNOBS = flags.DEFINE_string("knobs", "{}", 'Further fields of the setting: {"expert_top_p": 0.9}.')
_DRAFT_LENGTH = flags.DEFINE_integer("draft_length", None, "N; 5 where blocks are drafted.")
_VERIFIER = flags.DEFINE_string("verifier", None, "token or block.")
_MIDDLE_RULE = flags.DEFINE_string(
    "middle_rule", None, "What drafter and middle model draft by, in a pair of three models."
)
_MIDDLE_ALPHA = flags.DEFINE_float("middle_alpha", None, "The middle rule's alpha.")
_MIDDLE_DRAFT_LENGTH = flags.DEFINE_integer(
    "middle_draft_length", None, "Tokens that the drafter writes per pass of the middle model."
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 for greedy.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the random draws.")
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "The most tokens of an answer.")
app.define_native()
flags.mark_flags_as_required(["config"])


def main(argv):
    del argv
    from speccascade.inference import generate

    middle = (_MIDDLE_RULE, _MIDDLE_ALPHA, _MIDDLE_DRAFT_LENGTH)
    given = (_METHOD, _RULE, _ALPHA, _DRAFT_LENGTH, _VERIFIER, *middle, _TEMPERATURE, _SEED)
    completions = generate.from_flags(
        _CONFIG.value,
        prompt=_PROMPT.value,
        prompts_file=_PROMPTS_FILE.value,
        knobs=_KNOBS.value,
        fields={flag.name: flag.value for flag in given},
        max_new_tokens=_MAX_NEW_TOKENS.value,
    )
    for completion in completions:
        print(completion.text.strip(), json.dumps(completion.statistics), sep="\n")


if __name__ == "__main__":
    app.run(main)
