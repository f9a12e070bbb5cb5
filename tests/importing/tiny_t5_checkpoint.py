"""A tiny T5 checkpoint in the Hugging Face layout, written without any other library's help."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

from speccascade import models, text
from speccascade.importing.preparation import flat
from tests.importing import planned, t5_families

CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "is_encoder_decoder": True,
    "vocab_size": 260,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
    "n_positions": 64,
}


def tensors(config: dict = CONFIG) -> dict[str, np.ndarray]:
    """Returns the tensors of a config: random, the same for the same name and shape."""
    plan = planned.plan(config)
    shapes = flat(models.shapes(models.build(plan.description)))
    return {w.name: t5_families.tensor(w.name, shapes[k].shape) for k, w in plan.weights.items()}


def write(folder: pathlib.Path, weights=None, **changes) -> pathlib.Path:
    """Writes a checkpoint.

    Args:
      folder: made here.
      weights: its tensors; by default those of its config.
      **changes: fields of its config.json; None leaves one out.
    """
    folder.mkdir(parents=True)
    config = {k: v for k, v in {**CONFIG, **changes}.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(config) if weights is None else weights, folder / "model.safetensors")
    text.train(["a tiny text"], 258).save(folder)
    return folder
