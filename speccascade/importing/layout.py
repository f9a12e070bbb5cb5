"""How a JAX program names and lays out the tensors of a model."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.importing.stored_arrays import StoredArray


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
      name: its name in the Hugging Face layout.
      stored: the array's.
      rank: how many axes the array has.
      lay: what makes the tensor of the array.
    """

    name: str
    stored: str
    rank: int
    lay: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the names and the shapes of a folder's arrays tell.

    Attributes:
      config: the fields of the config.json that the model has in the Hugging Face layout.
      places: of all its tensors, those that are missing included.
      ignored: regular expressions of arrays that are not needed; each must match a whole name.
      unsaid: fields that a config.json beside the arrays must have.
    """

    config: dict[str, Any]
    places: tuple[Place, ...]
    ignored: tuple[str, ...]
    unsaid: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Returns whether an array is not needed."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def shape(arrays: Mapping[str, StoredArray], name: str, rank: int, what: str) -> tuple[int, ...]:
    """Returns the sizes of an array that tell something.

    Raises:
      UserError: it is not there, or has not `rank` axes; `what` says what it would tell.
    """
    if name not in arrays:
        raise UserError(f"{name} is missing, whose shape tells {what}")
    found = arrays[name].shape
    if len(found) != rank or 0 in found:
        raise UserError(f"{name} is {list(found)} and should have {rank} axes, which tell {what}")
    return found


def layers(arrays: Mapping[str, StoredArray], pattern: str) -> int:
    """Returns how many layers there are, by the largest number that a name has behind `pattern`."""
    found = (re.match(rf"{pattern}(\d+)/", name) for name in arrays)
    return max((int(match[1]) + 1 for match in found if match), default=0)
