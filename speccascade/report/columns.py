"""The figures of a setting as tables and CSV have them: one definition each.

A statistic of decoding is a column by itself (`inference/statistics.py`); another figure is a row
here. CSV has all; a table those that are shown, and those that it is asked for.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from speccascade.inference.statistics import STATISTICS
from speccascade.inputs import values
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
      shown: whether a table has it that was not asked for it.
    """

    heading: str
    text: Callable[[Point, Points], str]
    record: Callable[[Point, Points], dict[str, Any]]
    in_main: bool = True
    shown: bool = True


def _with_interval(name: str, value: float | None, bounds: tuple | None) -> dict[str, Any]:
    low, high = bounds or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _speedup(point: Point, points: Points) -> str:
    if point.timing is None:
        return NOTHING
    return interval(point.speedup, point.timing.interval, digits=2)


def _of_statistic(name: str) -> Column:
    own = STATISTICS[name]

    def text(point: Point, points: Points) -> str:
        value = point.rates[name]
        several = value if isinstance(value, list) else [value]
        return " ".join(number(each, own.digits) for each in several)

    def record(point: Point, points: Points) -> dict[str, Any]:
        value = point.rates[name]
        if isinstance(value, list):
            return {f"{name}_{i}": each for i, each in enumerate(value, 1)}
        return {name: value}

    return Column(own.heading, text, record, own.in_main, own.shown)


def _asked(name: str, heading: str, of: Callable[[Point], float | None], digits: int) -> Column:
    """Returns a column that stands where it is asked for."""
    return Column(
        heading,
        lambda point, points: number(of(point), digits),
        lambda point, points: {name: of(point)},
        shown=False,
    )


def _acceptance_length(point: Point) -> float | None:
    return point.rates["tokens_per_expert_call"] if point.setting.method.in_blocks else None


def _acceptance_of_tested(point: Point) -> float | None:
    rejected = point.rates["rejection_rate"]
    return None if rejected is None or not point.setting.method.in_blocks else 1 - rejected


def _first_token(point: Point) -> float | None:
    return None if point.timing is None else point.timing.time_to_first_token


def _output_token(point: Point) -> float | None:
    return None if point.timing is None else point.timing.time_per_output_token


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
            "speedup", point.speedup, None if point.timing is None else point.timing.interval
        ),
    ),
    **{name: _of_statistic(name) for name, own in STATISTICS.items() if own.shown},
    "compute": Column(
        "compute",
        lambda point, points: number(points.compute(point), 2),
        lambda point, points: {"compute": points.compute(point)},
    ),
    # What others call what we measure.
    "acceptance_length": _asked("acceptance_length", "acceptance length", _acceptance_length, 2),
    "acceptance_of_tested": _asked(
        "acceptance_of_tested", "acceptance of tested", _acceptance_of_tested, 3
    ),
    **{name: _of_statistic(name) for name, own in STATISTICS.items() if not own.shown},
    "time_to_first_token": _asked("time_to_first_token", "TTFT, ms", _first_token, 1),
    "time_per_output_token": _asked("time_per_output_token", "TPOT, ms", _output_token, 2),
}


def shown(asked: Sequence[str] = (), main: bool = False) -> dict[str, Column]:
    """Returns the columns of a table, by name.

    Args:
      asked: columns that are not shown unless one asks for them.
      main: whether it is a main table.

    Raises:
      UserError: there is no such column.
    """
    for name in asked:
        values.choice("column", name, COLUMNS)
    return {
        name: column
        for name, column in COLUMNS.items()
        if name in asked or (column.shown and (column.in_main or not main))
    }


def records(point: Point, points: Points) -> dict[str, Any]:
    """Returns every figure of a point by name, None for what is missing."""
    found: dict[str, Any] = {}
    for column in COLUMNS.values():
        found |= column.record(point, points)
    return found
