"""Every setting that was measured, not only those that a criterion chose."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from speccascade.inference.setting import Setting
from speccascade.report import columns
from speccascade.report.choice_table import chosen
from speccascade.report.points import Point, Points
from speccascade.report.table import Table


def tables(points: Points, split: str, asked: Sequence[str] = ()) -> list[Table]:
    """Returns a table for each temperature and draft length; the first has what drafts nothing.

    Args:
      points: what was measured.
      split: whose.
      asked: see `columns.shown`.
    """
    own = columns.shown(asked)
    names = ("setting", *(column.heading for column in own.values()))
    found = []
    for temperature in points.temperatures():
        of = [p for p in points.on(split) if p.setting.temperature == temperature]
        lengths = {p.setting.draft_length for p in of}
        for length in sorted(lengths, key=lambda n: n or 0):
            rows = [
                [
                    points.mark(point.setting, name(point.setting, draft_length=None)),
                    *(column.text(point, points) for column in own.values()),
                ]
                for point in of
                if point.setting.draft_length == length
            ]
            drafted = "without blocks" if length is None else f"N = {length}"
            found.append(Table(f"Temperature {temperature:g}, {drafted}", names, rows))
    return found


def records(points: Points, split: str) -> list[dict[str, Any]]:
    """Returns every figure of every setting, None for what is missing."""
    return [_record(point, points) for point in points.on(split)]


def name(setting: Setting, **left_out: None) -> str:
    """Returns label and choices, a verifier by tokens left out, and what else is given as None."""
    verifier = None if setting.verifier == "token" else setting.verifier
    rest = dataclasses.replace(setting, verifier=verifier, **left_out)
    return " ".join(part for part in (setting.label, rest.choices) if part)


def _record(point: Point, points: Points) -> dict[str, Any]:
    setting = point.setting
    return {
        "method": setting.label,
        **chosen(setting),
        "temperature": setting.temperature,
        "num_examples": len(point.scores),
        **columns.records(point, points),
    }
