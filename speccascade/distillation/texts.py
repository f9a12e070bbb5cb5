"""Texts with what an expert makes of them, in files: what its drafter learns from.

A directory of them has 00000.npz and so on, a batch of answered prompts each, and every file of it
appears whole or not at all.

Of the expert's distributions its features are kept, in bfloat16, half the bytes of float32, and the
normaliser of what the head makes of them. An expert that computes in bfloat16 loses nothing. One in
float32 teaches others than its own: the shipped GSM pair's two models, computed in float32, differ
by 5e-7 and 5e-5 in total variation on average over 1,250 tokens, at most by 4e-4 and 2e-3, and one
most likely token in a thousand of the smaller one changes.
"""

import dataclasses
from collections.abc import Collection

import numpy as np
from etils import epath


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts with what the expert made of them.

    Attributes:
      tokens: int32 [R, T], prompt, answer, padding.
      prompt_length: int32 [R].
      first: int32 [R], where what is learnt begins: with the answer, or already with a prompt that
        the expert made up.
      length: int32 [R], prompt and answer together.
      features: uint16 [R, T, D], bits of what the expert's head reads, as bfloat16.
      log_normaliser: float32 [R, T], of the logits that the head makes of these.
    """

    tokens: np.ndarray
    prompt_length: np.ndarray
    first: np.ndarray
    length: np.ndarray
    features: np.ndarray
    log_normaliser: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Returns the fields of some rows."""
        return {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}

    def split(self, at: int) -> tuple["Texts", "Texts"]:
        """Returns the first `at` texts and the others."""
        return Texts(**self.batch(slice(0, at))), Texts(**self.batch(slice(at, None)))


def load(directory: epath.Path, num_texts: int) -> Texts:
    """Reads the first `num_texts` texts."""
    parts: dict[str, list[np.ndarray]] = {f.name: [] for f in dataclasses.fields(Texts)}
    for path in files(directory):
        with path.open("rb") as file, np.load(file) as saved:
            for name, found in parts.items():
                found.append(saved[name])
        if sum(map(len, parts["tokens"])) >= num_texts:
            break
    return Texts(**{name: np.concatenate(found)[:num_texts] for name, found in parts.items()})


def unfinished(directory: epath.Path, num_texts: int, eos_ids: Collection[int]) -> int:
    """Returns how many of the first `num_texts` ended for want of room."""
    ends: list[np.ndarray] = []
    for path in files(directory):
        with path.open("rb") as file, np.load(file) as saved:  # no more of it than these two
            ends.append(saved["tokens"][np.arange(len(saved["length"])), saved["length"] - 1])
    return int(np.sum(~np.isin(np.concatenate(ends)[:num_texts], list(eos_ids))))


def save(path: epath.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a file of some texts' fields that is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial_path.replace(path)


def files(directory: epath.Path) -> list[epath.Path]:
    """Returns the files of a directory, in the order in which they were written."""
    return sorted(directory.glob("*.npz"))
