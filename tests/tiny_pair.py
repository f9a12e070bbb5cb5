"""A random pair of two tiny transformers, and a sweep over it, as a config file and in-process."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import ml_collections

from speccascade import models, pairs, tasks, text
from speccascade.inference.sweep import product
from tests import random_params
from tests.training import tiny

PROMPT = "How many? " * 15  # takes as much room as the task's prompts
WIDTHS = {"drafter": 8, "expert": 16}
MIDDLE = {**WIDTHS, "middle": 12}


def description(role: str) -> dict[str, Any]:
    """Returns a model's description but for the size of its vocabulary."""
    return {
        "d_model": MIDDLE[role],
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 4,
        "d_ff": 16,
        "tie_embeddings": False,
    }


def make(scale: float = 3.0, roles: Iterable[str] = WIDTHS) -> pairs.Pair:
    """Returns the pair; its distributions are far from uniform and differ between its models."""
    return _made(scale, tuple(roles))


@functools.cache
def _made(scale: float, roles: tuple[str, ...]) -> pairs.Pair:
    task = tasks.make(tiny.get_config().task)
    examples = task.examples("train", 20)
    tokenizer = text.train((e.prompt + e.answer for e in examples), 300)
    built, params = {}, {}
    for i, role in enumerate(roles):
        built[role] = models.build({**description(role), "vocab_size": tokenizer.vocab_size})
        params[role] = random_params.scaled(built[role], i, scale)
    return pairs.Pair("tiny", built, params=params, tokenizer=tokenizer, context_length=300)


def in_float32(pair: pairs.Pair) -> pairs.Pair:
    """Returns a pair whose models compute in float32."""
    exact = {
        role: models.build({**models.describe(model), "dtype": "float32"})
        for role, model in pair.models.items()
    }
    return dataclasses.replace(pair, models=exact)


def get_config(pair_directory: str = "") -> ml_collections.ConfigDict:
    """Returns a sweep of seconds over the pair exported to `pair_directory`."""
    config = ml_collections.ConfigDict()
    config.task = tiny.get_config().task
    config.pair = pair_directory
    # Tests that decode in these shapes share what was compiled: batches of 8, 6 tokens, `PROMPT`.
    config.evaluate = {
        "settings": product(
            method=("autoregressive_expert", "autoregressive_drafter"), temperature=(0.0, 1.0)
        )
        + product(rule="token_v3", alpha=(0.2, 0.8), draft_length=2, temperature=(0.0, 1.0)),
        "splits": {"validation": 5, "test": 4},
        "max_new_tokens": 6,
        "batch_size": 8,
        "timing": {"num_examples": 2, "trials": 2},
    }
    return config
