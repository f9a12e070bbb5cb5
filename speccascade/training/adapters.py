"""Adapters of low rank, trained in the place of a model's weights (Hu et al. 2021, "LoRA").

They are a pytree like the parameters, of the matrices that they stand beside alone: float32, whole
on every device of a mesh. The weights are as they were loaded, and lie as in any training.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from speccascade import randomness
from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.models.interface import Params
from speccascade.models.low_rank import LowRank

_EXAMPLE = '{"rank": 8, "alpha": 16, "targets": ("query", "value")}'


@dataclasses.dataclass(frozen=True)
class Adapters:
    """What is beside which matrices; hashable, since a step is compiled for it.

    Attributes:
      rank: of each.
      alpha: what they are multiplied by, over their rank.
      targets: names of matrices, such as "query", in every layer.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def first(self, params: Params, seed: int) -> Params:
        """Returns adapters that change nothing yet: `a` is random and `b` is zero.

        Args:
          params: the weights, or their shapes.
          seed: of the random numbers.

        Raises:
          UserError: a target is no matrix of the model's.
        """
        known = sorted(_names(params))
        if unknown := [name for name in self.targets if name not in known]:
            raise UserError(
                f"train.lora.targets={unknown[0]} is no matrix of the layers; known: "
                f"{', '.join(known)}"
            )
        count = 0

        def make(weight):
            nonlocal count
            count += 1
            key = jax.random.fold_in(randomness.key(seed), count)
            out, size = weight.shape
            a = jax.random.normal(key, (self.rank, size)) * size**-0.5
            return {"a": a, "b": jnp.zeros((out, self.rank))}

        return self._at_targets(params, make)

    def beside(self, params: Params, adapters: Params) -> Params:
        """Returns the parameters with `LowRank` in the place of the targets."""
        found = dict(params)
        for key, part in adapters.items():
            if "a" in part:
                found[key] = LowRank(params[key], part["a"], part["b"], self.alpha / self.rank)
            else:
                found[key] = self.beside(params[key], part)
        return found

    def merged(self, params: Params, adapters: Params) -> Params:
        """Returns the parameters of a model that needs no adapters any more."""

        def whole(leaf):
            return leaf.whole() if isinstance(leaf, LowRank) else leaf

        def is_leaf(x):
            return isinstance(x, LowRank)

        return jax.tree.map(whole, self.beside(params, adapters), is_leaf=is_leaf)

    def _at_targets(self, params, make):
        found = {}
        for key in sorted(params):
            value = params[key]
            if not isinstance(value, Mapping):
                continue
            if key in self.targets and _is_matrix(value):
                found[key] = {"weight": make(value["weight"])}
            elif inner := self._at_targets(value, make):
                found[key] = inner
        return found


def read(section: Any) -> Adapters | None:
    """Returns what the config's `train.lora` asks for; None for a training of all weights.

    Raises:
      UserError: a field is missing, unknown or out of range.
    """
    if section is None:
        return None
    fields = ("rank", "alpha", "targets")
    given = values.section("train.lora", section, fields)
    if unknown := sorted(set(given) - set(fields)):
        raise UserError(f"unknown field train.lora.{unknown[0]}; give it as {_EXAMPLE}")
    alpha = values.number("train.lora.alpha", given["alpha"])
    if alpha <= 0:
        raise UserError(f"train.lora.alpha={alpha} must be above 0")
    targets = given["targets"]
    if isinstance(targets, str) or not targets or not all(isinstance(t, str) for t in targets):
        raise UserError(f"train.lora.targets={targets!r} must be names of matrices: {_EXAMPLE}")
    return Adapters(values.whole("train.lora.rank", given["rank"], 1), alpha, tuple(targets))


def _is_matrix(value: Any) -> bool:
    return isinstance(value, Mapping) and "weight" in value and value["weight"].ndim == 2


def _names(params: Params, inside: bool = False) -> set[str]:
    """Returns the names of the matrices in layers; the head and embeddings are in none."""
    found: set[str] = set()
    for key, value in params.items():
        if inside and _is_matrix(value):
            found.add(key)
        elif isinstance(value, Mapping):
            found |= _names(value, True)
    return found
