"""A number that is known to lie between two bounds."""

from typing import NamedTuple

import numpy as np


class Between(NamedTuple):
    """Two bounds of an array."""

    low: np.ndarray
    high: np.ndarray

    def times(self, other: "Between") -> "Between":
        """Returns bounds of the product of two numbers between bounds."""
        ends = [a * b for a in self for b in other]
        return Between(np.min(ends, axis=0), np.max(ends, axis=0))

    def plus(self, other: "Between") -> "Between":
        """Returns bounds of the sum."""
        return Between(self.low + other.low, self.high + other.high)
