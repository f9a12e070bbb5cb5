"""Trade-off curves of what was decoded: quality against latency, rejection and deferral rate."""

import dataclasses
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from speccascade.inference.setting import Setting
from speccascade.report import style
from speccascade.report.points import Point, Points


@dataclasses.dataclass(frozen=True)
class _Axis:
    """What a plot has below it.

    Attributes:
      label: for people.
      value: a point's place on the axis, None where it has none.
      ends: the places of the expert's and the drafter's own decoding, where they have one.
    """

    label: str
    value: Callable[[Point], float | None]
    ends: dict[str, float] = dataclasses.field(default_factory=dict)


_LATENCY = _Axis(
    "latency per token relative to the expert's own decoding",
    lambda point: 1 / point.speedup if point.speedup else None,
    {"expert": 1.0},
)
_REJECTION = _Axis("rejection rate", lambda point: point.rates["rejection_rate"])
_DEFERRAL = _Axis(
    "deferral rate",
    lambda point: point.rates["deferral_rate"],
    {"expert": 1.0, "drafter": 0.0},
)


def quality_latency(points: Points, split: str, path: str) -> None:
    """Draws quality against relative latency, one line per rule, a panel per temperature and N."""
    _draw(points, split, path, _LATENCY)


def quality_rejection(points: Points, split: str, path: str) -> None:
    """Draws quality against rejection rate in the same way; expert and drafter are levels here."""
    _draw(points, split, path, _REJECTION)


def quality_deferral(points: Points, split: str, path: str) -> None:
    """Draws quality against the deferral rate of what was decoded, in the same way.

    Of the positions of emitted tokens; methods that defer nothing by a rule have no place here.
    """
    _draw(points, split, path, _DEFERRAL)


def _draw(points: Points, split: str, path: str, axis: _Axis) -> None:
    found = [p for (_, s), p in points.by_setting.items() if s == split]
    speculative = [p for p in found if p.setting.method.in_blocks]
    temperatures = sorted({p.setting.temperature for p in found})
    lengths = sorted({p.setting.draft_length for p in speculative}) or [None]
    placed = [p for p in found if axis.value(p) is not None]
    lines = [p.setting for p in placed if _reference(p) is None]
    labels = dict.fromkeys(style.line_name(setting) for setting in lines)
    styles = {label: i for i, label in enumerate(labels)}
    figure, grid = style.panels(len(temperatures), len(lengths), sharex=True, sharey="row")
    for row, temperature in zip(grid, temperatures, strict=True):
        for axes, length in zip(row, lengths, strict=True):
            # Methods without a draft length stand in every panel of their temperature.
            panel = [
                p
                for p in found
                if p.setting.temperature == temperature and p.setting.draft_length in (length, None)
            ]
            _panel(axes, panel, axis, styles)
            title = f"temperature {temperature:g}"
            axes.set_title(title + (f", N = {length}" if length else ""), fontsize=10)
        row[0].set_ylabel("quality")
    figure.supxlabel(axis.label, fontsize=10)
    style.finish(figure, grid, path, (*styles, "expert", "drafter"))


def _panel(axes: Axes, panel: Sequence[Point], axis: _Axis, styles: dict[str, int]) -> None:
    for label, index in styles.items():
        line = [
            (axis.value(p), p.quality, p)
            for p in sorted(panel, key=lambda p: (p.setting.knobs, p.setting.expert_truncation))
            if style.line_name(p.setting) == label and axis.value(p) is not None
        ]
        if not line:
            continue
        xs, ys, line_points = zip(*line, strict=True)
        look = style.line(index)
        style.intervals(axes, xs, ys, [p.interval for p in line_points], look["color"])
        axes.plot(xs, ys, label=label, **look)
    for p in panel:
        if (name := _reference(p)) is not None:
            x = axis.ends.get(name, axis.value(p))
            if x is None:
                style.level(axes, p.quality, name)
            else:
                style.star(axes, x, p.quality, name)


def _reference(point: Point) -> str | None:
    """Returns whose own decoding a point is, "expert" or "drafter", None where nobody's."""
    own = Setting(point.setting.method, temperature=point.setting.temperature)
    return own.method.alone if point.setting == own else None
