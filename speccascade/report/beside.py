"""Several workdirs in one table: two machines, two pairs, two editions, aligned by setting."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from speccascade.errors import UserError
from speccascade.report import columns, every_setting
from speccascade.report.points import MARK, Points
from speccascade.report.table import NOTHING, Table

_FIGURES = ("quality", "tokens_per_expert_call", "speedup")


def titles(workdirs: list[str]) -> list[str]:
    """Returns a short name for each workdir: as much of the end of its path as it takes."""
    paths = [os.path.normpath(workdir).split(os.sep) for workdir in workdirs]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"{workdirs[0]} is given twice; give other workdirs")


def tables(
    by_title: Mapping[str, Points], split: str, asked: Sequence[str] = ()
) -> list[Table]:
    """Returns a table for each temperature: settings down, figures and workdirs across.

    Args:
      by_title: what was measured.
      split: whose.
      asked: see `columns.shown`.

    Raises:
      UserError: the workdirs are of different tasks.
    """
    of = {points.shared["task"] for points in by_title.values()}
    if len(of) > 1:
        raise UserError(f"workdirs of one task can stand beside each other, not {sorted(of)}")
    settings = dict.fromkeys(s for points in by_title.values() for s in points.settings())
    found = columns.shown(asked)
    shown = [found[name] for name in dict.fromkeys((*_FIGURES, *asked))]
    names = ("setting", *(f"{column.heading}, {t}" for column in shown for t in by_title))
    made = []
    for temperature in sorted({s.temperature for s in settings}):
        rows = []
        for setting in (s for s in settings if s.temperature == temperature):
            cells = {t: points.of(setting, split) for t, points in by_title.items()}
            if not any(cells.values()):
                continue
            figures = [
                column.text(point, by_title[t]) if point else NOTHING
                for column in shown
                for t, point in cells.items()
            ]
            marked = any(setting in points.marked for points in by_title.values())
            label = every_setting.name(setting)
            rows.append([f"{label} {MARK}" if marked else label, *figures])
        made.append(Table(f"Temperature {temperature:g}", names, rows))
    return made


def notes(by_title: Mapping[str, Points]) -> list[str]:
    """Returns what each workdir's rows are of, and what a reader must know of them."""
    found = []
    for title, points in by_title.items():
        of = ", ".join(f"{key} {value}" for key, value in points.shared.items())
        found.append(f"{title}: {of}.")
        found += [f"{title}: {note}." for note in points.notes]
    return found


def records(by_title: Mapping[str, Points], split: str) -> list[dict[str, Any]]:
    """Returns the figures, a record for each workdir and setting."""
    return [
        {"workdir": title, **record}
        for title, points in by_title.items()
        for record in every_setting.records(points, split)
    ]
