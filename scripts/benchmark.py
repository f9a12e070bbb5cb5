"""How fast a pair decodes: `python scripts/benchmark.py --config=CONFIG.py`, as Markdown.

CONFIG.py is configs/word_problems.py for a shipped pair or configs/synthetic.py for a larger one
with random weights. Nothing else should run on the machine meanwhile. A run takes about as many
minutes as the config's benchmark.minutes says.

With --peer=transformers it is compared with Hugging Face's assisted generation and prompt lookup,
on the same weights and prompts.
"""

from functools import partial

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to measure; see configs/.")
_PROFILE = flags.DEFINE_string("profile", "", "A directory to write a profiler trace to.")
_PEER = flags.DEFINE_enum(
    "peer",
    "",
    ["", "transformers"],
    "A library to compare with, greedily and at batch 1; pip install -r requirements-peers.txt.",
)
app.define_native()
flags.mark_flags_as_required(["config"])


def main(argv):
    del argv
    from speccascade.benchmark import benchmarking

    say = partial(print, flush=True)
    benchmarking.run(_CONFIG.value, say, profile=_PROFILE.value, peer=_PEER.value)


if __name__ == "__main__":
    app.run(main)
