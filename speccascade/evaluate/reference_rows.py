"""Rows of what rules, and the oracle, do on reference answers.

The *oracle* knows the reference: it defers the positions at which p of the reference's token
exceeds q of it by most. No rule that decides by position has a higher quality at the same deferral
rate, whatever it looks at. It does not bound rules that decide by token, which can defer a part of
q's mass at one position.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from speccascade.inference import metrics

# Shares of the positions that the oracle's curve defers: close together where it rises.
BUDGETS = tuple(i / 100 for i in (*range(10), *range(10, 101, 5)))


class Figures(NamedTuple):
    """What one setting says of the positions of a batch.

    Attributes:
      pi: float32 [B, A], the target's probability of the reference's token.
      q: float32 [B, A], the drafter's.
      p: float32 [B, A], the expert's.
      deferral: float32 [B, A], the deferred mass; NaN where the method has no such thing.
      distance: float32 [B, A], TV(pi, q), the probability of a rejection.
    """

    pi: jax.Array
    q: jax.Array
    p: jax.Array
    deferral: jax.Array
    distance: jax.Array


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return above.sum(-1) / below.sum(-1)


def _interval(sums: np.ndarray, length: np.ndarray) -> list[float]:
    there = length > 0  # an example without positions says nothing
    return list(metrics.bootstrap(_ratio, sums[there], length[there]))


def _rounded(values: np.ndarray) -> list:
    return np.round(values, 6).tolist()


def sums(figures: Figures, own: np.ndarray) -> np.ndarray:
    """Returns each example's sums of pi, deferral and TV over its positions, float64 [3, B]."""
    columns = figures.pi, figures.deferral, figures.distance
    return np.array([np.where(own, x, 0.0).sum(1, dtype=np.float64) for x in columns])


def gains(figures: Figures, own: np.ndarray) -> np.ndarray:
    """Returns q and p at the positions, zero elsewhere, float32 [2, B, A]."""
    return np.array([np.where(own, x, 0.0) for x in (figures.q, figures.p)])


def rule_row(totals: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    """Returns a rule's row.

    Args:
      totals: of all examples, see `sums`, [3, n].
      own: bool [n, A], where an example's answer has a token.
    """
    if not own.any():
        return {"positions": 0, "quality": None, "deferral_rate": None, "rejection_rate": None}
    length = own.sum(1).astype(np.float64)
    reference, deferral, distance = totals
    defers = bool(np.isfinite(deferral).all())
    return {
        "positions": int(own.sum()),
        "quality": float(_ratio(reference, length)),
        "quality_ci": _interval(reference, length),
        "deferral_rate": float(_ratio(deferral, length)) if defers else None,
        "rejection_rate": float(_ratio(distance, length)),
        "lengths": own.sum(1).tolist(),
        "reference_sums": _rounded(reference),
        "deferral_sums": _rounded(deferral) if defers else None,
        "tv_sums": _rounded(distance),
    }


def oracle_row(pairs: np.ndarray, own: np.ndarray) -> dict[str, Any]:
    """Returns the oracle's row: a point of its curve for each of `BUDGETS`.

    Of positions with equal gain as many are deferred as the budget leaves room for, each in equal
    part: its quality is the same whichever they are.

    Args:
      pairs: of all examples, see `gains`, [2, n, A].
      own: bool [n, A], where an example's answer has a token.
    """
    if not own.any():
        return {"positions": 0, "quality": None, "deferral_rate": None}
    q, p = pairs.astype(np.float64)
    gain = np.where(own, p - q, -np.inf)
    ordered = np.sort(gain[own])[::-1]
    qualities, intervals, totals = [], [], []
    length = own.sum(1).astype(np.float64)
    for budget in BUDGETS:
        wanted = budget * len(ordered)
        edge = ordered[min(int(wanted), len(ordered) - 1)]
        above = int(np.sum(ordered > edge))
        part = (wanted - above) / int(np.sum(ordered == edge))
        deferral = np.where(gain > edge, 1.0, np.where(gain == edge, part, 0.0))
        reference = (q + deferral * (p - q)).sum(1)
        qualities.append(float(_ratio(reference, length)))
        intervals.append(_interval(reference, length))
        totals.append(_rounded(reference))
    return {
        "positions": int(own.sum()),
        "quality": qualities,
        "quality_ci": intervals,
        "deferral_rate": list(BUDGETS),
        "lengths": own.sum(1).tolist(),
        "reference_sums": totals,
    }
