"""Trade-off curves: quality against relative latency and against rejection rate."""

import dataclasses
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from etils import epath

matplotlib.use("Agg")  # files only: no display is needed
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from speccascade.evaluate.settings import Setting  # noqa: E402
from speccascade.report.points import Point, Points  # noqa: E402

# Okabe and Ito's colours, told apart by colour-blind readers too; markers change with them.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D1F")
_MARKERS = "osD^vP<>Xph*"
_REFERENCES = {"autoregressive_expert": ("expert", "*"), "autoregressive_drafter": ("drafter", "X")}


@dataclasses.dataclass(frozen=True)
class _Axis:
    """What a plot has below it.

    Attributes:
      label: for people.
      value: a point's place on the axis, None where it has none.
      expert: the place of the expert's own decoding, None where it has none.
    """

    label: str
    value: Callable[[Point], float | None]
    expert: float | None = None


_LATENCY = _Axis(
    "latency per token relative to the expert's own decoding",
    lambda point: 1 / point.speedup if point.speedup else None,
    expert=1.0,
)
_REJECTION = _Axis("rejection rate", lambda point: point.rates["rejection_rate"])


def quality_latency(points: Points, split: str, path: str) -> None:
    """Draws quality against relative latency, one line per rule, a panel per temperature and N."""
    _draw(points, split, path, _LATENCY)


def quality_rejection(points: Points, split: str, path: str) -> None:
    """Draws quality against rejection rate in the same way; expert and drafter are levels here."""
    _draw(points, split, path, _REJECTION)


def _draw(points: Points, split: str, path: str, axis: _Axis) -> None:
    found = [p for (_, s), p in points.by_setting.items() if s == split]
    speculative = [p for p in found if p.setting.method == "speculative"]
    temperatures = sorted({p.setting.temperature for p in found})
    lengths = sorted({p.setting.draft_length for p in speculative}) or [None]
    labels = list(dict.fromkeys(_line(p.setting) for p in found))
    styles = {label: i for i, label in enumerate(x for x in labels if x not in _REFERENCES)}
    figure, grid = plt.subplots(
        len(temperatures),
        len(lengths),
        figsize=(4.2 * len(lengths) + 2.4, 3.4 * len(temperatures) + 0.6),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
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
    handles = {}
    for axes in grid.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = [label for label in (*styles, "expert", "drafter") if label in handles]
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
    )
    with epath.Path(path).open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
    plt.close(figure)


def _line(setting: Setting) -> str:
    """The name of the line that a setting belongs to; the block verifier draws its own."""
    return setting.label + (" (block)" if setting.verifier == "block" else "")


def _panel(axes: Axes, panel: Sequence[Point], axis: _Axis, styles: dict[str, int]) -> None:
    for label, style in styles.items():
        line = [
            (axis.value(p), p.quality, p)
            for p in sorted(panel, key=lambda p: (p.setting.knobs, p.setting.expert_truncation))
            if _line(p.setting) == label and axis.value(p) is not None
        ]
        if not line:
            continue
        xs, ys, line_points = zip(*line, strict=True)
        errors = np.abs(np.transpose([p.interval for p in line_points]) - ys)
        colour = _COLOURS[style % len(_COLOURS)]
        axes.errorbar(xs, ys, errors, fmt="none", ecolor=colour, alpha=0.25, linewidth=1)
        axes.plot(
            xs,
            ys,
            color=colour,
            marker=_MARKERS[style % len(_MARKERS)],
            linestyle="--" if style >= len(_COLOURS) else "-",
            markersize=5,
            linewidth=1.3,
            label=label,
        )
    for method, (name, marker) in _REFERENCES.items():
        for p in panel:
            if p.setting == Setting(method, temperature=p.setting.temperature):
                _reference(axes, p, axis, name, marker)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)


def _reference(axes: Axes, point: Point, axis: _Axis, name: str, marker: str) -> None:
    """Marks the expert or the drafter alone; a level where it has no place on the axis."""
    dashes = ":" if name == "drafter" else "--"
    x = axis.expert if name == "expert" else axis.value(point)
    if x is None:
        axes.axhline(point.quality, color="0.35", linestyle=dashes, linewidth=1.2, label=name)
        return
    axes.axhline(point.quality, color="0.75", linestyle=dashes, linewidth=1)
    axes.plot(
        x,
        point.quality,
        marker,
        color="0.25",
        markersize=11,
        linestyle="none",
        label=name,
        zorder=5,
    )
