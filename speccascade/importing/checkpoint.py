"""What a file format is to the importer: a config and tensors that are read piece by piece."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A stored tensor, not yet read.

    Attributes:
      shape: its sizes, outermost first.
      dtype: as the file calls it: "BF16", "Q4_K".
      read_rows: returns rows [start, stop) of the outermost axis as floats; None where the dtype
        cannot be read.
      restore: what makes the whole tensor that of the Hugging Face layout; None where it is.
      in_pieces: whether some rows cost less to read than all of them.
    """

    shape: tuple[int, ...]
    dtype: str
    read_rows: Callable[[int, int], np.ndarray] | None
    restore: Callable[[np.ndarray], np.ndarray] | None = None
    in_pieces: bool = True

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors of one shape as one of an axis more, whose rows they are."""
    first = tensors[0]

    def read_rows(start: int, stop: int) -> np.ndarray:
        found = [tensor.read_rows(0, first.shape[0]) for tensor in tensors[start:stop]]
        if len({part.dtype for part in found}) > 1:  # NumPy has none that holds any two of them
            found = [part.astype(np.float32) for part in found]
        return np.stack(found)

    return Tensor((len(tensors), *first.shape), first.dtype, read_rows)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a source holds.

    Attributes:
      tensors: by their names in the Hugging Face layout.
      readable: the dtypes that the format's reader knows.
      problems: what is wrong with the files, each a phrase.
      lost: names of tensors that are lost with what `problems` says.
      called: what messages call a tensor, by its name; one that is not there, by its name.
    """

    tensors: dict[str, Tensor]
    readable: tuple[str, ...]
    problems: tuple[str, ...] = ()
    lost: frozenset[str] = frozenset()
    called: Mapping[str, str] = dataclasses.field(default_factory=dict)
