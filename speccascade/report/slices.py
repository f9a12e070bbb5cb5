"""Figures over one field of a setting, all else alike: temperature, top-p, draft length."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from speccascade.inference.setting import Setting
from speccascade.report import style
from speccascade.report.choice import BEST, TEST, choose, complete_temperatures
from speccascade.report.comparison import name
from speccascade.report.points import Point, Points

# What a panel shows, and its interval.
_PANELS: tuple[tuple[str, Callable[[Point], float | None], Callable[[Point], Any]], ...] = (
    ("quality", lambda p: p.quality, lambda p: p.interval),
    ("speed-up", lambda p: p.speedup, lambda p: p.timing.interval),
    ("tokens per expert call", lambda p: p.rates["tokens_per_expert_call"], lambda p: None),
)

Lines = Mapping[str, Sequence[tuple[float, Point]]]
"""By name: places on the axis, ascending, with what was measured there."""


def by_temperature(points: Points) -> dict[str, Lines]:
    """Returns every method at its best within the expert's latency, over temperatures.

    The drafter alone is left out: its speed would hide what the others differ in.
    """
    lines = defaultdict(list)
    temperatures = complete_temperatures(points)
    for temperature in temperatures:
        for choice in choose(points, temperature, BEST):
            if choice.setting is not None and choice.setting.method.alone != "drafter":
                lines[choice.label].append((temperature, choice.test))
    return _panels({"": lines})


def by_draft_length(points: Points) -> dict[str, Lines]:
    """Returns settings that differ in N alone, by temperature."""
    found: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for setting in points.settings():
        if setting.draft_length is not None and (point := points.of(setting, TEST)):
            rest = dataclasses.replace(setting, draft_length=None)
            found[_temperature(setting)][name(rest)].append((setting.draft_length, point))
    return _panels(found)


def by_top_p(points: Points, who: str) -> dict[str, Lines]:
    """Returns settings that differ in one model's top-p alone, by temperature.

    Args:
      points: of the sweep.
      who: "drafter" or "expert". Without truncation it is 1.
    """
    field = f"{who}_truncation"
    truncated = [s for s in points.settings() if "top_p" in dict(getattr(s, field))]
    found: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for setting in truncated:
        limits = dict(getattr(setting, field))
        value = limits.pop("top_p")
        without: dict[str, Any] = {field: tuple(limits.items())}
        rest = dataclasses.replace(setting, **without)
        line = found[_temperature(setting)][f"{name(rest)}, {who} top_p"]
        if point := points.of(setting, TEST):
            line.append((value, point))
        whole = points.of(rest, TEST)
        if whole is not None and all(value != 1 for value, _ in line):
            line.append((1.0, whole))
    return _panels(found)


def _temperature(setting: Setting) -> str:
    return f"temperature {setting.temperature:g}"


def _panels(found: Mapping[str, Lines]) -> dict[str, Lines]:
    """Keeps lines of two places or more, and what has such lines."""
    kept: dict[str, Lines] = {}
    for title, lines in found.items():
        long = {k: sorted(v, key=lambda at: at[0]) for k, v in lines.items() if len(v) > 1}
        if long:
            kept[title] = long
    return kept


def draw(found: Mapping[str, Lines], below: str, path: str) -> None:
    """Draws quality, speed-up and tokens per expert call over a field.

    Args:
      found: by title; a row of panels each.
      below: what the axis is.
      path: a PNG.
    """
    order = list(dict.fromkeys(name for lines in found.values() for name in lines))
    figure, grid = style.panels(len(found), len(_PANELS), sharex=True)
    for row, (title, lines) in zip(grid, found.items(), strict=True):
        for axes, (what, value, bounds) in zip(row, _PANELS, strict=True):
            for label, line in lines.items():
                placed = [(x, value(p), bounds(p)) for x, p in line if value(p) is not None]
                if placed:
                    xs, ys, intervals = zip(*placed, strict=True)
                    look = style.line(label)
                    if all(intervals):
                        style.intervals(axes, xs, ys, intervals, look["color"])
                    axes.plot(xs, ys, label=label, **look)
            axes.set_ylabel(what, fontsize=9)
            axes.set_xticks(sorted({x for line in lines.values() for x, _ in line}))
            axes.set_title(title, fontsize=10)
    figure.supxlabel(below, fontsize=10)
    style.finish(figure, grid, path, order)
