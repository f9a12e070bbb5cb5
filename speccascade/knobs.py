"""What the parameters of rules may be."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from speccascade import learned_head
from speccascade.errors import UserError
from speccascade.inputs import values


@dataclasses.dataclass(frozen=True)
class Knob:
    """A parameter of a rule.

    Attributes:
      low: least value allowed.
      high: largest value allowed, excluded where `open_high`.
      default: the value where none is given; None where one must be.
      static: whether a change recompiles (a Python int) rather than being traced.
      whole: whether a traced one must be a whole number, as a static one must.
      is_token: whether it is a token id, which a pair must have and no other knob of a rule has.
    """

    low: float = -np.inf
    high: float = np.inf
    open_high: bool = False
    default: float | None = None
    static: bool = False
    whole: bool = False
    is_token: bool = False

    @property
    def domain(self) -> str:
        """The allowed values, as text."""
        if self.low == -np.inf and self.high == np.inf:
            return "any finite number"
        kind = "whole numbers in " if self.static or self.whole else ""
        close = ")" if self.open_high or self.high == np.inf else "]"
        start = "(" if self.low == -np.inf else "["
        return f"{kind}{start}{self.low:g}, {self.high:g}{close}"

    def check(self, rule: str, name: str, value: Any) -> Any:
        """Returns the value as an array, a static one as an int; raises UserError elsewhere."""
        if np.ndim(value) > (0 if self.static else 1):
            raise UserError(f"rule {rule}: {name} must be one number, or where traced one per row")
        read = values.whole if self.static else values.number
        found: list[Any] = []
        for own in [value] if np.ndim(value) == 0 else value:
            try:
                found.append(read(name, own))
            except UserError:
                found.append(None)
            if found[-1] is None or not self._holds(found[-1]):
                raise UserError(f"rule {rule}: {name}={own} is outside its domain {self.domain}")
        if self.static:
            return found[0]
        return np.array(found, np.float32).reshape(np.shape(value))

    def _holds(self, value: float | np.floating) -> bool:
        if not self.static:
            with np.errstate(over="ignore"):
                value = np.float32(value)  # as it is computed with
            if not np.isfinite(value) or (self.whole and value % 1):
                return False
        below = value < self.high if self.open_high else value <= self.high
        return bool(self.low <= value and below)


@dataclasses.dataclass(frozen=True)
class HeadKnob:
    """A trained head as the parameter of a rule: its file, as `learned_head.load` takes it."""

    default: None = None
    static: bool = True
    is_token: bool = False
    domain: str = "a head, the file that scripts/learn_rule.py wrote or shipped:NAME"

    def check(self, rule: str, name: str, value: Any) -> learned_head.Head:
        """Returns the head; raises UserError where there is none."""
        return learned_head.load(learned_head.reference(value))


def check(
    rule: str, known: Mapping[str, Knob | HeadKnob], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a rule's knobs, in their order, as `Knob.check` returns each.

    Args:
      rule: its name, for messages.
      known: its knobs by name.
      given: their values; those that are not given have their default.

    Raises:
      UserError: a knob is unknown, missing, NaN or outside its domain, or two are one token.
    """
    if unknown := sorted(set(given) - set(known)):
        has = ", ".join(known) or "none"
        raise UserError(f"rule {rule} has no knob {', '.join(unknown)}; its knobs: {has}")
    found: dict[str, Any] = {}
    for name, knob in known.items():
        value = given.get(name, knob.default)
        if value is None:
            raise UserError(f"rule {rule} needs {name}; its domain is {knob.domain}")
        found[name] = knob.check(rule, name, value)
    tokens = {name: value for name, value in found.items() if known[name].is_token}
    if len(set(tokens.values())) < len(tokens):
        shown = ", ".join(f"{name}={value}" for name, value in tokens.items())
        raise UserError(f"rule {rule}: {shown} must be different tokens")
    return found
