"""Plans a pair on a TPU slice that is not there: what fits, what it exchanges, how fast it can be.

    pip install -r requirements-tpu.txt
    python scripts/tpu_plan.py --config=configs/paper/gemma2_2b_27b.py --topology=v5e:4x4

Needs the compiler for TPUs, but neither a TPU nor the weights. The programs that would run, one
that reads the prompts and the decode loop, are compiled for the slice with the shapes of weights
and caches. What comes out, per device: weights, caches and temporaries with their share of the
memory, the largest batch that fits, what the devices exchange in a block, whether the caches are
overwritten in place, and the least time that the chip's published rates allow for a draft step, an
expert pass, verification and a token. Where it does not fit: by how much, and the nearest setting
that does. Of a config that fine-tunes its models, as configs/paper/t5_small_large.py:xsum, the
steps of training are compiled too, and at the end stands what training, prefill and decoding need.

Times are those of the decode loop; reading the prompts counts with its memory alone.

Expected of the example: about 8.6 GB on each chip, and no collective with an axis of the vocabulary
or of a cache. Compiling takes a minute or two per slice on an idle core; a batch of which
arithmetic says that it is the largest is compiled with --confirm only.
"""

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "The pair; see configs/paper/.")
_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "The slice, GENERATION:GRID of chips: v4:2x2x4, v5e:4x4, v5p:2x2x4, v6e:4x4, ...; several with "
    "commas between; all for these four.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Rows on the whole slice; the config's own.")
_WEIGHTS = flags.DEFINE_string("weights", "bfloat16", "bfloat16 or int8, how weights are stored.")
_ACCEPTANCE = flags.DEFINE_float(
    "acceptance", 0.8, "The assumed probability that a draft token is kept; a run measures it."
)
_CONFIRM = flags.DEFINE_bool("confirm", False, "Compile the largest batch too.")
flags.mark_flags_as_required(["config", "topology"])


def main(argv):
    del argv
    from speccascade.plan import planning

    planning.run(
        _CONFIG.value,
        print,
        slices=_TOPOLOGY.value,
        batch_size=_BATCH_SIZE.value,
        weights=_WEIGHTS.value,
        acceptance=_ACCEPTANCE.value,
        confirm=_CONFIRM.value,
    )


if __name__ == "__main__":
    app.run(main)
