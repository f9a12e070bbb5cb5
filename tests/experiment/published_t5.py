"""A pair of small T5 v1.1 as they are published: gated-GELU, untied, more rows than token ids.

    python -m tests.experiment.published_t5 DIR [TEXTS.txt]

writes DIR/drafter and DIR/expert, whose weights are random.
"""

import json
import pathlib
import shutil
import sys
from collections.abc import Iterable

import numpy as np
from safetensors.numpy import save_file

from speccascade import models
from speccascade.importing.preparation import flat
from tests import random_params
from tests.importing import planned, tiny_t5_checkpoint
from tests.text import makers

SIZES = {
    "drafter": {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 1, "num_decoder_layers": 1},
    "expert": {"d_model": 128, "d_kv": 64, "d_ff": 256},
}


def write(
    folder: pathlib.Path, texts: Iterable[str], ids: int = 1000, rows: int = 1024
) -> dict[str, str]:
    """Returns the pair's source.

    Args:
      folder: where the two go.
      texts: what their tokenizer learns from.
      ids: the most token ids that it has.
      rows: of embedding and head.
    """
    makers.unigram(folder / "drafter", texts=list(texts), vocab_size=ids)
    shutil.copytree(folder / "drafter", folder / "expert")  # made again it would be another
    for seed, (role, own) in enumerate(SIZES.items()):
        lengths = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
        fields = {**tiny_t5_checkpoint.CONFIG, **lengths, **own, "vocab_size": rows}
        fields |= {"n_positions": 512, "eos_token_id": 1}
        (folder / role / "config.json").write_text(json.dumps(fields))
        plan = planned.plan(fields)
        model = models.build(plan.description)
        made = flat(random_params.of(model, seed))
        weights = {w.name: np.asarray(made[key], np.float32) for key, w in plan.weights.items()}
        save_file(weights, folder / role / "model.safetensors")
    return {role: str(folder / role) for role in SIZES}


if __name__ == "__main__":
    print(write(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text().splitlines()))
