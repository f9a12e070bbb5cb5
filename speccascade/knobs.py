"""What the parameters of rules may be."""

import dataclasses
from typing import Any

import numpy as np

from speccascade import head as heads
from speccascade.errors import UserError


@dataclasses.dataclass(frozen=True)
class Knob:
    """A parameter of a rule.

    Attributes:
      low: least value allowed.
      high: largest value allowed, excluded where `open_high`.
      default: the value where none is given; None where one must be.
      static: whether a change recompiles (a Python int) rather than being traced.
    """

    low: float = -np.inf
    high: float = np.inf
    open_high: bool = False
    default: float | None = None
    static: bool = False

    @property
    def domain(self) -> str:
        """The allowed values, as text."""
        if self.low == -np.inf and self.high == np.inf:
            return "any finite number"
        kind = "whole numbers in " if self.static else ""
        close = ")" if self.open_high or self.high == np.inf else "]"
        start = "(" if self.low == -np.inf else "["
        return f"{kind}{start}{self.low:g}, {self.high:g}{close}"

    def check(self, rule: str, name: str, value: Any) -> np.ndarray | int:
        """Returns the value as an array, a static one as an int; raises UserError elsewhere."""
        array = np.asarray(value, np.float64 if self.static else np.float32)
        if array.ndim > (0 if self.static else 1):
            raise UserError(f"rule {rule}: {name} must be one number, or where traced one per row")
        ok = np.isfinite(array) & (array >= self.low)
        ok &= array < self.high if self.open_high else array <= self.high
        if self.static:
            ok &= array == np.rint(array)
        if not np.all(ok):
            shown = array[~ok][0] if array.ndim else value
            raise UserError(f"rule {rule}: {name}={shown} is outside its domain {self.domain}")
        return int(array) if self.static else array


@dataclasses.dataclass(frozen=True)
class HeadKnob:
    """A trained head as the parameter of a rule: the name of its file, which `head.load` takes."""

    default: None = None
    static: bool = True
    domain: str = "a head, the file that scripts/learn_rule.py wrote or shipped:NAME"

    def check(self, rule: str, name: str, value: Any) -> heads.Head:
        """Returns the head; raises UserError where there is none."""
        return heads.load(heads.reference(value))
