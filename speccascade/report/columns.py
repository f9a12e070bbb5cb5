"""The figures of a setting as tables and CSV have them: one definition each.

A statistic of decoding is a column by itself (`inference/statistics.py`); another figure is a row
here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from speccascade.inference.statistics import STATISTICS
from speccascade.report.points import Point, Points
from speccascade.report.table import NOTHING, interval, number


@dataclasses.dataclass(frozen=True)
class Column:
    """A figure of a point.

    Attributes:
      heading: its name in tables.
      text: as tables write it.
      record: as CSV has it, by name; None for what is missing.
      in_main: whether the main tables have it, too.
    """

    heading: str
    text: Callable[[Point, Points], str]
    record: Callable[[Point, Points], dict[str, Any]]
    in_main: bool = True


def _with_interval(name: str, value: float | None, bounds: tuple | None) -> dict[str, Any]:
    low, high = bounds or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _speedup(point: Point, points: Points) -> str:
    if point.timing is None:
        return NOTHING
    return interval(point.speedup, point.timing.interval, digits=2)


def _of_statistic(name: str) -> Column:
    own = STATISTICS[name]
    return Column(
        own.heading,
        lambda point, points: number(point.rates[name], own.digits),
        lambda point, points: {name: point.rates[name]},
        own.in_main,
    )


COLUMNS = {
    "quality": Column(
        "quality",
        lambda point, points: interval(point.quality, point.interval),
        lambda point, points: _with_interval("quality", point.quality, point.interval),
    ),
    "speedup": Column(
        "speed-up",
        _speedup,
        lambda point, points: _with_interval(
            "speedup", point.speedup, point.timing and point.timing.interval
        ),
    ),
    **{name: _of_statistic(name) for name, own in STATISTICS.items() if own.shown},
    "compute": Column(
        "compute",
        lambda point, points: number(points.compute(point), 2),
        lambda point, points: {"compute": points.compute(point)},
    ),
}


def records(point: Point, points: Points) -> dict[str, Any]:
    """Returns every figure of a point by name, None for what is missing."""
    found: dict[str, Any] = {}
    for column in COLUMNS.values():
        found |= column.record(point, points)
    hidden = (name for name, own in STATISTICS.items() if not own.shown)
    return found | {name: point.rates[name] for name in hidden}
