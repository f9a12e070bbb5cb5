"""How time and memory grow: `python scripts/growth.py --config=configs/growth.py --workdir=DIR`.

Time per token against the prompt's length, the cache's, the vocabulary and the batch; tokens/s of a
data set against slots; the cost of a sweep against its settings; what a process takes to its first
token, cold and warm; memory of each. One table and one plot each, of synthetic models, and a CSV.

Nothing else should run on the machine meanwhile. Started again with the same arguments, it goes on
where it stopped; sizes that were added are measured, the others are not.
"""

from functools import partial

from absl import flags
from ml_collections import config_flags

from speccascade.runtime import app

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to measure; see configs/growth.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where rows, plots and the CSV go.")
app.define_native()
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    del argv
    from speccascade.benchmark.growth import growing

    growing.run(_CONFIG.value, _WORKDIR.value, partial(print, flush=True))


if __name__ == "__main__":
    app.run(main)
