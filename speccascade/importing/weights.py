"""What an architecture tells the importer: the model, and where each parameter comes from."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from speccascade.errors import UserError

_REQUIRED = object()


@dataclasses.dataclass(frozen=True)
class Weight:
    """Where a parameter comes from: a tensor of the checkpoint and what is done to it.

    Attributes:
      name: the tensor's name in the Hugging Face layout.
      transform: what makes the parameter of the whole tensor; None leaves it as it is.
    """

    name: str
    transform: Callable[[np.ndarray], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a checkpoint becomes a model.

    Attributes:
      description: for `models.build`, without `dtype` and `param_dtype`.
      weights: by flat parameter key, "attention_0/query/weight".
      ignored: regular expressions of tensors that are not needed (tied heads, rotary tables); each
        must match a whole name.
    """

    description: dict[str, Any]
    weights: dict[str, Weight]
    ignored: tuple[str, ...] = ()


class Fields:
    """A config.json that is being read; remembers which fields were asked for.

    A field that nobody asked for may change what the model computes, so an import that leaves one
    is refused.

    Args:
      values: its fields.
      file: what messages call it.
    """

    def __init__(self, values: Mapping[str, Any], file: str = "config.json"):
        self._values = dict(values)
        self._file = file
        self._read = set()

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """Returns a field's value, `default` where it is absent.

        Raises:
          UserError: it is absent and there is no default.
        """
        self._read.add(name)
        if name in self._values:
            return self._values[name]
        if default is _REQUIRED:
            raise UserError(f"{self._file} lacks {name}")
        return default

    def expect(self, name: str, *values: Any) -> None:
        """Checks that a field is absent or has one of `values`.

        Raises:
          UserError: it has another value.
        """
        value = self.get(name, values[0])
        if value not in values:
            wanted = " or ".join(map(repr, values))
            raise UserError(f"{self._file} has {name}={value!r}: not implemented, only {wanted}")

    def ignore(self, *names: str) -> None:
        """Marks fields that say nothing about the computation."""
        self._read.update(names)

    def unread(self) -> list[str]:
        """Returns the fields that nobody asked for."""
        return sorted(set(self._values) - self._read)
