"""From counts and scores to the figures of a row, with bootstrap intervals over examples."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from speccascade.inference.setting import Setting
from speccascade.inference.statistics import STATISTICS, counts, finite

RESAMPLES = 1000
CONFIDENCE = 0.95


def bootstrap(
    statistic: Callable[..., np.ndarray], *columns: Any, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a statistic of paired columns.

    Args:
      statistic: maps arrays `[..., n]` or `[..., n, k]`, one per column, to `[...]`.
      *columns: n values, or n rows of k, each; the same examples are drawn from all of them, with
        replacement.
      resamples: number of resamples. Their seed is fixed: the same scores give the same interval.
    """
    arrays = [np.asarray(column, np.float64) for column in columns]
    size = len(arrays[0])
    rng = np.random.default_rng(0)
    values = []
    for start in range(0, resamples, 100):  # in parts, for memory's sake
        index = rng.integers(size, size=(min(100, resamples - start), size))
        values.append(statistic(*(array[index] for array in arrays)))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(np.concatenate(values), [tail, 100 - tail])
    return float(low), float(high)


def difference(statistic: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """Returns the function from two paired columns to the difference of a statistic of each."""
    return lambda values, others: statistic(values) - statistic(others)


def speedup(
    ms: np.ndarray, tokens: np.ndarray, expert_ms: np.ndarray, expert_tokens: np.ndarray
) -> np.ndarray:
    """Returns the expert's time per token over the method's, each over all examples together."""
    return (expert_ms.sum(-1) / expert_tokens.sum(-1)) / (ms.sum(-1) / tokens.sum(-1))


def verdict(interval: tuple[float, float], zero: float = 0.0) -> str:
    """Returns "better", "worse" or, where the interval of a difference holds `zero`, neither."""
    low, high = interval
    if low > zero:
        return "better"
    return "worse" if high < zero else "not told apart"


def rates(counts: Mapping[str, float], setting: Setting) -> dict[str, Any]:
    """Returns what is told of a setting by its counts summed over examples.

    What a method does not have is None.

    Args:
      counts: see `statistics.py`, summed.
      setting: how they were decoded.
    """
    calls = {"drafter_calls": 0.0, **{k: v for k, v in counts.items() if k.endswith("_calls")}}
    return {
        **{name: statistic.of(counts, setting) for name, statistic in STATISTICS.items()},
        **{name: round(count) for name, count in calls.items()},
        "tokens": round(counts["emitted"]),
    }


__all__ = ["bootstrap", "counts", "difference", "finite", "rates", "speedup", "verdict"]
