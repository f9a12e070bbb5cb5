"""Trade-off curves of what was decoded: quality against what the expert or time is spent on.

One panel per temperature, of the draft length that most settings have: what other lengths do has a
figure of its own (`slices.py`).
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from speccascade.inference.setting import Setting
from speccascade.report import style
from speccascade.report.points import Point, Points


@dataclasses.dataclass(frozen=True)
class Axis:
    """What a plot has below it.

    Attributes:
      label: for people.
      value: a point's place on the axis, None where it has none.
      ends: the places of the expert's and the drafter's own decoding, where they have one.
    """

    label: str
    value: Callable[[Point], float | None]
    ends: dict[str, float] = dataclasses.field(default_factory=dict)


_LATENCY = Axis(
    "latency per token relative to the expert's own decoding",
    lambda point: 1 / point.speedup if point.speedup else None,
    {"expert": 1.0},
)
SPEEDUP = Axis("speed-up over the expert alone", lambda point: point.speedup, {"expert": 1.0})
CALLS = Axis(
    "tokens per expert call",
    lambda point: point.rates["tokens_per_expert_call"],
)
_REJECTION = Axis("rejection rate", lambda point: point.rates["rejection_rate"])
_DEFERRAL = Axis(
    "deferral rate",
    lambda point: point.rates["deferral_rate"],
    {"expert": 1.0, "drafter": 0.0},
)


def quality_latency(points: Points, split: str, path: str) -> None:
    """Draws quality against relative latency, a line per rule and a panel per temperature."""
    _draw(points, split, path, _LATENCY)


def quality_calls(points: Points, split: str, path: str) -> None:
    """Draws quality against tokens per expert call in the same way."""
    _draw(points, split, path, CALLS)


def quality_rejection(points: Points, split: str, path: str) -> None:
    """Draws quality against rejection rate in the same way; expert and drafter are levels here."""
    _draw(points, split, path, _REJECTION)


def quality_deferral(points: Points, split: str, path: str) -> None:
    """Draws quality against the deferral rate of what was decoded, in the same way.

    Of the positions of emitted tokens; methods that defer nothing by a rule have no place here.
    """
    _draw(points, split, path, _DEFERRAL)


def _draw(points: Points, split: str, path: str, axis: Axis) -> None:
    found = [p for (_, s), p in points.by_setting.items() if s == split]
    length = _usual_length(found)
    found = [p for p in found if p.setting.draft_length in (length, None)]
    temperatures = sorted({p.setting.temperature for p in found})
    placed = [p for p in found if axis.value(p) is not None]
    labels = list(
        dict.fromkeys(style.line_name(p.setting) for p in placed if reference(p) is None)
    )
    figure, grid = style.panels(1, len(temperatures))
    for axes, temperature in zip(grid[0], temperatures, strict=True):
        _panel(axes, [p for p in found if p.setting.temperature == temperature], axis, labels)
        title = f"temperature {temperature:g}"
        axes.set_title(title + (f", N = {length}" if length else ""), fontsize=10)
    grid[0][0].set_ylabel("quality")
    figure.supxlabel(axis.label, fontsize=10)
    style.finish(figure, grid, path, (*labels, "expert", "drafter"))


def _usual_length(found: Sequence[Point]) -> int | None:
    """Returns the draft length of most settings, the shorter of two; None without any."""
    lengths = Counter(p.setting.draft_length for p in found if p.setting.method.in_blocks)
    return min(lengths, key=lambda n: (-lengths[n], n), default=None)


def _panel(axes: Axes, panel: Sequence[Point], axis: Axis, labels: Sequence[str]) -> None:
    for label in labels:
        line = [
            (axis.value(p), p.quality, p)
            for p in sorted(panel, key=lambda p: (p.setting.knobs, p.setting.expert_truncation))
            if style.line_name(p.setting) == label and axis.value(p) is not None
        ]
        if not line:
            continue
        xs, ys, line_points = zip(*line, strict=True)
        look = style.line(label)
        style.intervals(axes, xs, ys, [p.interval for p in line_points], look["color"])
        axes.plot(xs, ys, label=label, **look)
    for p in panel:
        if (name := reference(p)) is not None:
            x = axis.ends.get(name, axis.value(p))
            if x is None:
                style.level(axes, p.quality, name)
            else:
                style.star(axes, x, p.quality, name)


def reference(point: Point) -> str | None:
    """Returns whose own decoding a point is, "expert" or "drafter", None where nobody's."""
    own = Setting(point.setting.method, temperature=point.setting.temperature)
    return own.method.alone if point.setting == own else None
