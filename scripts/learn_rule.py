"""Trains the head of the rule `learned`.

    python scripts/learn_rule.py --config=CONFIG.py --out=HEAD.json

Both models of the config's pair read worked answers of its task, and a small head learns from their
distributions at each token which of them is right. A setting then names it by its path:

    product(rule="learned", head="HEAD.json", alpha=(0.0, 0.1, 0.2), draft_length=5)

Prints how well it tells, on examples held out from it, beside the plug-in estimate that `opt` uses.
They are training examples, or with --unseen the last ones of the validation split, for models that
know their training texts by heart. An evaluation that would measure by the same examples is then
refused. Test examples are never read.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "Names task and pair; see configs/.")
_OUT = flags.DEFINE_string("out", None, "The file that the head goes to, as JSON.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 512, "How many it reads.")
_UNSEEN = flags.DEFINE_bool(
    "unseen", False, "Whether to take the last ones of the validation split."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the head's first weights.")
flags.mark_flags_as_required(["config", "out"])


def main(argv):
    del argv
    from speccascade.training import learned_head

    arguments = _OUT.value, _NUM_EXAMPLES.value, _SEED.value, _UNSEEN.value
    print(learned_head.learn(_CONFIG.value, *arguments))


if __name__ == "__main__":
    app.run(main)
