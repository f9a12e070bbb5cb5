"""Every setting that was measured, not only those that a criterion chose."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from speccascade.inference.setting import Setting
from speccascade.report.choice_table import chosen, speedup
from speccascade.report.points import Point, Points
from speccascade.report.table import Table, interval, number

_COLUMNS: tuple[tuple[str, Callable[[Point, Points], str]], ...] = (
    (
        "setting",
        lambda point, points: points.mark(point.setting, _short(point)),
    ),
    ("quality", lambda point, points: interval(point.quality, point.interval)),
    ("speed-up", lambda point, points: speedup(point)),
    ("tokens per expert call", lambda p, points: number(p.rates["tokens_per_expert_call"], 2)),
    ("rejection rate", lambda point, points: number(point.rates["rejection_rate"])),
    ("deferral rate", lambda point, points: number(point.rates["deferral_rate"])),
    ("compute", lambda point, points: number(points.compute(point), 2)),
)


def tables(points: Points, split: str) -> list[Table]:
    """Returns a table for each temperature and draft length; the first has what drafts nothing."""
    names = tuple(name for name, _ in _COLUMNS)
    found = []
    for temperature in points.temperatures():
        of = [p for p in _points(points, split) if p.setting.temperature == temperature]
        lengths = {p.setting.draft_length for p in of}
        for length in sorted(lengths, key=lambda n: n or 0):
            rows = [
                [cell(point, points) for _, cell in _COLUMNS]
                for point in of
                if point.setting.draft_length == length
            ]
            drafted = "without blocks" if length is None else f"N = {length}"
            found.append(Table(f"Temperature {temperature:g}, {drafted}", names, rows))
    return found


def records(points: Points, split: str) -> list[dict[str, Any]]:
    """Returns every figure of every setting, None for what is missing."""
    return [_record(point, points) for point in _points(points, split)]


def _points(points: Points, split: str) -> Iterator[Point]:
    return (point for (_, s), point in points.by_setting.items() if s == split)


def name(setting: Setting, **left_out: None) -> str:
    """Returns label and choices, a verifier by tokens left out, and what else is given as None."""
    verifier = None if setting.verifier == "token" else setting.verifier
    rest = dataclasses.replace(setting, verifier=verifier, **left_out)
    return " ".join(part for part in (setting.label, rest.choices) if part)


def _short(point: Point) -> str:
    return name(point.setting, draft_length=None)  # which stands in the title


def _record(point: Point, points: Points) -> dict[str, Any]:
    setting = point.setting
    speed = point.timing.interval if point.timing else (None, None)
    return {
        "method": setting.label,
        **chosen(setting),
        "temperature": setting.temperature,
        "num_examples": len(point.scores),
        "quality": point.quality,
        "quality_low": point.interval[0],
        "quality_high": point.interval[1],
        "speedup": point.speedup,
        "speedup_low": speed[0],
        "speedup_high": speed[1],
        **{name: point.rates[name] for name in point.rates if name != "multiply_adds_per_token"},
        "compute": points.compute(point),
    }
