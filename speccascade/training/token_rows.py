"""Rows of tokens one behind the other, in memory or in a file of which only some are read."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from etils import epath

from speccascade.inputs import paths


class TokenRows:
    """Rows of unequally many tokens, padded to one width when they are taken: `rows[indices]`.

    As padded arrays, millions of sentences would take more than a machine's memory.

    Attributes:
      flat: [N], all tokens; on a disk they stay there.
      length: [R], tokens of each row.
      width: T, to which rows are padded.
      pad: what with.
    """

    def __init__(self, flat: np.ndarray, length: np.ndarray, width: int, pad: int):
        self.flat, self.length, self.width, self.pad = flat, length, width, pad

    @cached_property
    def _start(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.length, dtype=np.int64)])

    @property
    def shape(self) -> tuple[int, int]:
        """R and T."""
        return len(self), self.width

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, rows: int | np.ndarray) -> np.ndarray:
        """Returns a row, [T], or several, [B, T]."""
        found = self.take(np.atleast_1d(rows))
        return found if np.ndim(rows) else found[0]

    def take(self, rows: np.ndarray, needed: np.ndarray | None = None) -> np.ndarray:
        """Returns several rows, [B, T], of which only some need be read.

        Args:
          rows: [B], which.
          needed: bool [B]; the others are padding from end to end. None for all.
        """
        found = np.full((len(rows), self.width), self.pad, self.flat.dtype)
        for at in range(len(rows)) if needed is None else np.flatnonzero(needed):
            start, end = self._start[rows[at]], self._start[rows[at] + 1]
            found[at, : end - start] = self.flat[start:end]
        return found


def joined(rows: Sequence[Sequence[int]], vocab_size: int, width: int, pad: int) -> TokenRows:
    """Returns rows of token ids below `vocab_size`."""
    length = np.array([len(row) for row in rows], np.int32)
    dtype = np.uint16 if vocab_size <= 2**16 else np.int32
    flat = np.fromiter((token for row in rows for token in row), dtype, int(length.sum()))
    return TokenRows(flat, length, width, pad)


def read(path: epath.Path) -> np.ndarray:
    """Opens an array's file; one in a bucket is read whole.

    Raises:
      OSError, ValueError: there is none, or it is cut short.
    """
    if not paths.is_bucket(str(path)):
        return np.load(path, mmap_mode="r")
    with path.open("rb") as file:
        return np.load(file)


def write(path: epath.Path, array: np.ndarray) -> None:
    """Writes an array's file that is either whole or absent."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)
