"""A random pair of two tiny transformers whose tokenizer has a chat template."""

import pathlib

from speccascade import models, pairs, text
from tests import random_params, tiny_pair
from tests.text import makers


def make(folder: pathlib.Path, context_length: int | None = None, **config) -> pairs.Pair:
    """Returns the pair.

    Args:
      folder: for the tokenizer's files.
      context_length: see `Pair`.
      **config: of the tokenizer, see `makers`.
    """
    tokenizer = text.load(makers.byte_level(folder, **config))
    built, params = {}, {}
    for i, role in enumerate(tiny_pair.WIDTHS):
        described = {**tiny_pair.description(role), "vocab_size": tokenizer.vocab_size}
        built[role] = models.build(described)
        params[role] = random_params.scaled(built[role], i, 3.0)
    return pairs.Pair("tiny chat", built, params, tokenizer, context_length)
