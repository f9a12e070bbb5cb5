"""Which rows a step reads, by grain: a function of the seed and the step alone.

Epochs are shuffled and laid end to end, each with every row once. Neither their order nor a row is
held: `found[step]` asks for what it needs, whatever the devices and processes.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import grain
import numpy as np

from speccascade import randomness

# How many batches' worth of rows are sorted by length at a time.
_WINDOW = 50

# Batches that are read while a step is computed, and threads that wait for the disk.
_AHEAD = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)


def rows_of_steps(num_rows: int, batch_size: int, seed: int) -> grain.MapDataset:
    """Returns the rows of each step, int64 [batch_size], by its number from 0.

    Args:
      num_rows: of the whole set, at least 1.
      batch_size: rows of a step; of fewer rows some come more than once.
      seed: of the order.
    """
    return _shuffled(num_rows, seed).batch(batch_size)


def rows_of_like_length(lengths: np.ndarray, batch_size: int, seed: int) -> grain.MapDataset:
    """As `rows_of_steps`, of rows of like length, so that little of a batch is padding.

    Args:
      lengths: [R] of all rows.
      batch_size: rows of a step.
      seed: of the order.
    """
    size = min(_WINDOW, max(1, len(lengths) // batch_size))
    windows = rows_of_steps(len(lengths), size * batch_size, seed)

    @lru_cache(2)
    def window(number: int) -> np.ndarray:
        rows = windows[number]
        return rows[np.argsort(lengths[rows], kind="stable")].reshape(size, batch_size)

    return _shuffled(size, seed).map_with_index(lambda step, at: window(step // size)[at])


def _shuffled(count: int, seed: int) -> grain.MapDataset:
    return grain.MapDataset.range(count).seed(randomness.folded(seed)).shuffle().repeat()


def read_ahead(batches: grain.MapDataset, step: int) -> Iterator[Any]:
    """Yields the batch of a step and those after it, of which the next are read meanwhile."""
    return iter(batches[step:].to_iter_dataset(_AHEAD))
