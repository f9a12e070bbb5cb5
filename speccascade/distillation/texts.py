"""Texts with what an expert makes of them, in files: what its drafter learns from.

A directory of them has 00000.npz and so on, a batch of answered prompts each, and every file of it
appears whole or not at all. Beside each lies 00000.npy with its features, by far the most of it, of
which a step reads those of its rows.

Of the expert's distributions its features are kept, in bfloat16, half the bytes of float32, and the
normaliser of what the head makes of them. An expert that computes in bfloat16 loses nothing. One in
float32 teaches others than its own: the shipped GSM pair's two models, computed in float32, differ
by 5e-7 and 5e-5 in total variation on average over 1,250 tokens, at most by 4e-4 and 2e-3, and one
most likely token in a thousand of the smaller one changes.
"""

import dataclasses
import zipfile
from collections.abc import Collection, Sequence

import numpy as np
from etils import epath

from speccascade.errors import UserError
from speccascade.training import token_rows


class Features:
    """Features of many texts, uint16 [R, T, D], in several arrays, which may lie on a disk.

    Attributes:
      parts: the arrays.
      rows: int [R], which of their rows these are, counted through; None for all.
    """

    def __init__(self, parts: Sequence[np.ndarray], rows: np.ndarray | None = None):
        self.parts, self._ends = parts, np.cumsum([len(part) for part in parts])
        self.rows = np.arange(self._ends[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, where: slice) -> "Features":
        return Features(self.parts, self.rows[where])

    def take(self, rows: np.ndarray, needed: np.ndarray | None = None) -> np.ndarray:
        """Returns several rows, [B, T, D], of which only some need be read.

        Args:
          rows: [B], which.
          needed: bool [B]; the others are zeros. None for all.
        """
        found = np.zeros((len(rows), *self.parts[0].shape[1:]), self.parts[0].dtype)
        for at in range(len(rows)) if needed is None else np.flatnonzero(needed):
            row = self.rows[rows[at]]
            part = np.searchsorted(self._ends, row, side="right")
            found[at] = self.parts[part][row - self._ends[part]]  # counted from its end
        return found


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts with what the expert made of them.

    Attributes:
      tokens: int32 [R, T], prompt, answer, padding.
      prompt_length: int32 [R].
      first: int32 [R], where what is learnt begins: with the answer, or already with a prompt that
        the expert made up.
      length: int32 [R], prompt and answer together.
      features: uint16 [R, T, D], bits of what the expert's head reads, as bfloat16; read when they
        are asked for.
      log_normaliser: float32 [R, T], of the logits that the head makes of these.
    """

    tokens: np.ndarray
    prompt_length: np.ndarray
    first: np.ndarray
    length: np.ndarray
    features: Features
    log_normaliser: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: np.ndarray, needed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Returns the fields of some rows.

        Args:
          rows: [B], which.
          needed: bool [B], those of which the features are read; None for all.
        """
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        features = found.pop("features").take(rows, needed)
        return {**{name: value[rows] for name, value in found.items()}, "features": features}

    def split(self, at: int) -> tuple["Texts", "Texts"]:
        """Returns the first `at` texts and the others."""
        return self._part(slice(0, at)), self._part(slice(at, None))

    def _part(self, where: slice) -> "Texts":
        return Texts(*(getattr(self, f.name)[where] for f in dataclasses.fields(self)))


def load(directory: epath.Path, num_texts: int) -> Texts:
    """Reads the first `num_texts` texts but for their features.

    Raises:
      UserError: a file is damaged, or its features are gone.
    """
    features: list[np.ndarray] = []
    parts: dict[str, list[np.ndarray]] = {f.name: [] for f in dataclasses.fields(Texts)}
    del parts["features"]
    for path in files(directory):
        try:
            with path.open("rb") as file, np.load(file) as saved:
                for name, found in parts.items():
                    found.append(saved[name])
                inside = saved["features"] if "features" in saved else None  # as they once lay
            features.append(token_rows.read(_beside(path)) if inside is None else inside)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise UserError(
                f"{path} or {_beside(path).name} is damaged or missing; put it back, or remove "
                "these and all after them, which are then written anew"
            ) from None
        if sum(map(len, features)) >= num_texts:
            break
    joined = {name: np.concatenate(found)[:num_texts] for name, found in parts.items()}
    return Texts(**joined, features=Features(features)[:num_texts])


def unfinished(directory: epath.Path, num_texts: int, eos_ids: Collection[int]) -> int:
    """Returns how many of the first `num_texts` ended for want of room."""
    ends: list[np.ndarray] = []
    for path in files(directory):
        with path.open("rb") as file, np.load(file) as saved:  # no more of it than these two
            ends.append(saved["tokens"][np.arange(len(saved["length"])), saved["length"] - 1])
    return int(np.sum(~np.isin(np.concatenate(ends)[:num_texts], list(eos_ids))))


def save(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes some texts' fields; the file that says they are there is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    token_rows.write(_beside(path), arrays["features"])
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        rest = {name: value for name, value in arrays.items() if name != "features"}
        np.savez(file, allow_pickle=False, **rest)
    partial_path.replace(path)


def _beside(path: epath.Path) -> epath.Path:
    return path.with_suffix(".npy")


def files(directory: epath.Path) -> list[epath.Path]:
    """Returns the files of a directory, in the order in which they were written."""
    return sorted(directory.glob("*.npz"))
