"""A chat expert with random weights, and a distillation of seconds."""

import pathlib

import ml_collections

from speccascade import text
from tests.importing import tiny_checkpoint
from tests.text import makers


def expert(folder: pathlib.Path, certain: float = 1 / 8) -> str:
    """Writes the expert. At an eighth it is unsure of everything, and so ends a text soon."""
    ids = text.load(makers.byte_level(folder.parent / "tokenizer")).vocab_size
    shapes = {
        name: (ids, *shape[1:]) if shape[0] == 260 else shape
        for name, shape in tiny_checkpoint.SHAPES.items()
    }
    weights = {k: v * certain for k, v in tiny_checkpoint.tensors(shapes=shapes).items()}
    tiny_checkpoint.write(folder, weights, vocab_size=ids)
    makers.byte_level(folder)
    return str(folder)


def get_config(source: str = "") -> ml_collections.ConfigDict:
    """`source` is the expert."""
    config = ml_collections.ConfigDict()
    config.expert = {"source": source, "dtype": "float32"}
    config.texts = {
        "seed": 0,
        "num_texts": 20,
        "prompts": "self",
        "chat": True,
        "prompt_slots": 48,
        "max_new_tokens": 12,
        "temperatures": (0.0, 1.0),
        "batch_size": 8,
    }
    config.drafter = {"layers": (0,), "head_size": 200}
    config.train = {
        "seed": 0,
        "loss": "forward_kl",
        "num_steps": 12,
        "batch_size": 4,
        "validation_texts": 5,
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "log_every": 2,
        "eval_every": 6,
        "checkpoint_every": 4,
    }
    return config
