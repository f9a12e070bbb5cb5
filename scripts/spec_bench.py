"""Answers Spec-Bench's questions: `python scripts/spec_bench.py --config=CONFIG.py --workdir=DIR`.

Every setting's answers go to DIR/model_answer/NAME.jsonl in Spec-Bench's form, the expert's own
beside them, for its evaluation/speed.py; what that makes of them is printed, by task. Started again
it answers only what is missing. See docs/spec_bench.md.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to run; see configs/spec_bench.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where answers go.")
app.define_native()
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    del argv
    from speccascade.spec_bench import answering

    text, written = answering.run(_CONFIG.value, _WORKDIR.value)
    print(text)
    print("\n".join(written))


if __name__ == "__main__":
    app.run(main)
