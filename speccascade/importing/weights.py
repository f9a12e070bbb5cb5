"""What an architecture tells the importer: the model, and where each parameter comes from."""

import dataclasses
from collections.abc import Callable, Container, Mapping
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
      otherwise: the tensor's name where there is none of the first.
    """

    name: str
    transform: Callable[[np.ndarray], np.ndarray] | None = None
    otherwise: str | None = None

    def find(self, names: Container[str]) -> str:
        """Returns which of the two names is among `names`; the first where neither is."""
        other = self.otherwise
        return self.name if self.name in names or other not in names else other


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a checkpoint becomes a model.

    Attributes:
      description: for `models.build`, without `dtype` and `param_dtype`.
      weights: by flat parameter key, "attention_0/query/weight".
      ignored: regular expressions of tensors that are not needed (rotary tables); each must match a
        whole name.
      tied_head: the head's tensor where it is planned as the embedding; it may be stored again.
      untied: fields of config.json that plan a model with a head of its own. So a checkpoint is
        read whose two tensors differ whatever its config says, as `transformers` 5 reads it.
    """

    description: dict[str, Any]
    weights: dict[str, Weight]
    ignored: tuple[str, ...] = ()
    tied_head: Weight | None = None
    untied: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Fields:
    """A config.json that is being read; remembers which fields were asked for.

    A field that nobody asked for may change what the model computes, so an import that leaves one
    is refused.

    Args:
      values: its fields.
      file: what messages call it.
    """

    def __init__(self, values: Mapping[str, Any], file: str = "config.json"):
        self.values = dict(values)
        self._file = file
        self._read = set()

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """Returns a field's value, `default` where it is absent.

        Raises:
          UserError: it is absent and there is no default.
        """
        self._read.add(name)
        if name in self.values:
            return self.values[name]
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
        return sorted(set(self.values) - self._read)
