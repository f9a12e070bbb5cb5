"""What an architecture tells the importer: the model, and where each parameter comes from."""

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Weight:
    """Where a parameter comes from: a tensor of the checkpoint and what is done to it.

    Attributes:
      name: the tensor's name in the Hugging Face layout.
      transform: what makes the parameter of the whole tensor; None leaves it as it is.
      otherwise: the tensor's name where there is none of the first.
      stacked: how many tensors are stacked, whose numbers stand in the place of {} in the name;
        None where the parameter is one tensor.
    """

    name: str
    transform: Callable[[np.ndarray], np.ndarray] | None = None
    otherwise: str | None = None
    stacked: int | None = None

    def names(self, known: Container[str]) -> tuple[str, ...]:
        """Returns the names of its tensors, which may be among `known` or not; see `find`."""
        if self.stacked is None:
            return (self.find(known),)
        return tuple(self.name.format(i) for i in range(self.stacked))

    def find(self, names: Container[str]) -> str:
        """Returns which of its two names is among `names`; the first where neither is."""
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
