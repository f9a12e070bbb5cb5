"""How well the rejection rate, which is deterministic, tells latency, which is not."""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

from speccascade.inference.metrics import CONFIDENCE, RESAMPLES
from speccascade.report.points import Points
from speccascade.report.table import Table, interval

LEAST = 4  # settings below which a correlation says nothing


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Rejection rate against latency relative to the expert's, over settings.

    Attributes:
      draft_length: N of the settings; None for all.
      num_settings: how many there are.
      pearson: the linear correlation; None where it has no value.
      pearson_interval: bootstrap interval over settings.
      spearman: the correlation of ranks.
      spearman_interval: bootstrap interval over settings.
    """

    draft_length: int | None
    num_settings: int
    pearson: float | None
    pearson_interval: tuple[float, float] | None
    spearman: float | None
    spearman_interval: tuple[float, float] | None


def pearson(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Returns the linear correlation of `[..., n]` with `[..., n]`, NaN where one is constant."""
    xs, ys = (v - v.mean(-1, keepdims=True) for v in (xs, ys))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xs * ys).sum(-1) / np.sqrt((xs**2).sum(-1) * (ys**2).sum(-1))


def spearman(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Returns the correlation of ranks, ties having their mean rank."""
    return pearson(stats.rankdata(xs, axis=-1), stats.rankdata(ys, axis=-1))


def correlations(points: Points, split: str) -> list[Correlation]:
    """Returns the correlation per draft length that has enough settings, and over all of them."""
    found = [
        (p.setting.draft_length, p.rates["rejection_rate"], 1 / p.speedup)
        for (_, s), p in points.by_setting.items()
        if s == split and p.rates["rejection_rate"] is not None and p.speedup
    ]
    lengths = sorted({length for length, _, _ in found})
    made = [
        _correlation(length, [(x, y) for n, x, y in found if length in (None, n)])
        for length in (*(lengths if len(lengths) > 1 else ()), None)
    ]
    return [c for c in made if c.num_settings >= LEAST]


def _correlation(length: int | None, pairs: list[tuple[float, float]]) -> Correlation:
    xs, ys = np.array(pairs, np.float64).reshape(-1, 2).T
    if len(xs) < LEAST:
        return Correlation(length, len(xs), None, None, None, None)
    return Correlation(
        length, len(xs), *_with_interval(pearson, xs, ys), *_with_interval(spearman, xs, ys)
    )


def _with_interval(statistic: Callable, xs: np.ndarray, ys: np.ndarray):
    value = float(statistic(xs, ys))
    if not np.isfinite(value):
        return None, None
    index = np.random.default_rng(0).integers(len(xs), size=(RESAMPLES, len(xs)))
    values = statistic(xs[index], ys[index])
    tail = 50 * (1 - CONFIDENCE)
    # Settings that are all one have no correlation; such a draw says nothing.
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return value, (float(low), float(high))


def table(found: list[Correlation]) -> Table:
    """Returns the correlations as a table."""
    rows = [
        [
            "all" if c.draft_length is None else f"N = {c.draft_length}",
            str(c.num_settings),
            interval(c.pearson, c.pearson_interval, 2),
            interval(c.spearman, c.spearman_interval, 2),
        ]
        for c in found
    ]
    title = "Correlation of rejection rate with latency, over settings"
    return Table(title, ("settings", "number", "Pearson", "Spearman"), rows)
