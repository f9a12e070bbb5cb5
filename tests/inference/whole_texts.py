"""What a model scores of whole texts: without a cache, a block or a chunk."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

_SCORE = jax.jit(lambda model, *args: model.answer_logits(*args), static_argnums=0)


def logits(
    model, params, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """Returns the logits of each answer's positions, float32 [T, V]."""
    whole = dataclasses.replace(model, chunk=1 << 20)
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    found = _SCORE(whole, params, _padded(prompts), lengths, _padded(answers))
    return [np.asarray(x, np.float32)[: len(own)] for x, own in zip(found, answers, strict=True)]


def margins(scores: np.ndarray) -> np.ndarray:
    """Returns by how much the best of each position's logits leads, [T]."""
    best = np.sort(scores, axis=-1)
    return best[:, -1] - best[:, -2]


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    made = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, own in zip(made, rows, strict=True):
        row[: len(own)] = own
    return made
