"""A published-style T5 v1.1 whose embedding is padded, and a fine-tuning of it of seconds."""

import json
import pathlib

import ml_collections

from tests.importing import tiny_t5_checkpoint
from tests.training import tiny

KNOWN, ROWS = 258, 272  # token ids of the tokenizer; rows of embedding and head


def checkpoint(folder: pathlib.Path, **changes) -> str:
    """Writes the checkpoint: gated-GELU, untied, more rows than ids."""
    few = {"num_layers": 1, "num_decoder_layers": 1}
    return str(tiny_t5_checkpoint.write(folder, **{"vocab_size": ROWS, **few, **changes}))


def task(folder: pathlib.Path) -> dict:
    """Writes summaries of a few bytes and returns their task."""
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 40), ("validation", 6), ("test", 6)):
        texts = ((f"{split} {i} " + "ab" * (i % 5), f"{i}") for i in range(count))
        rows = [{"document": text, "summary": summary} for text, summary in texts]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "xsum", "path": str(folder), "format": "t5"}


def config(folder: pathlib.Path, source: str, **train) -> ml_collections.ConfigDict:
    """Returns a fine-tuning of `source`, which has neither `model` nor `tokenizer`.

    Args:
      folder: where the task's files go.
      source: the checkpoint.
      **train: fields of its `train`.
    """
    config = ml_collections.ConfigDict()
    config.task = task(folder / "task")
    config.train = tiny.get_config().train
    config.train.update(prompt_weight=0.0, row_length=64, num_steps=4, warmup_steps=1)
    config.train.update(weight_decay=0.0, eval_every=4, checkpoint_every=4)
    config.train.init_from = source
    config.train.update(train)
    return config
