"""Figures of what rules do on reference answers, beside the oracle."""

import numpy as np

from speccascade.inference.methods import ORACLE
from speccascade.report import style
from speccascade.report.points import Forced, Points


def quality_deferral(points: Points, split: str, path: str) -> None:
    """Draws the mean probability of the reference's token against the deferral rate.

    A panel per temperature, a line per rule, and the oracle's curve from the drafter alone to the
    expert alone.
    """
    found = [f for f in points.forced if f.split == split]
    rules = [f for f in found if f.setting.method.measured and np.isfinite(f.deferral[0])]
    temperatures = sorted({f.setting.temperature for f in rules})
    labels = dict.fromkeys(f.setting.label for f in rules)
    figure, [row] = style.panels(1, len(temperatures))
    for axes, temperature in zip(row, temperatures, strict=True):
        oracle = points.oracle(temperature, split)
        if oracle is not None:
            axes.plot(
                oracle.deferral,
                oracle.quality,
                color="0.25",
                linewidth=2,
                alpha=0.7,
                label=ORACLE.name,
            )
            axes.fill_between(oracle.deferral, *oracle.interval.T, color="0.25", alpha=0.1)
            style.star(axes, 1.0, oracle.quality[-1], "expert")
            style.star(axes, 0.0, oracle.quality[0], "drafter")
        for label in labels:
            line = [f for f in rules if f.setting.label == label]
            _line(axes, [f for f in line if f.setting.temperature == temperature], label)
        axes.set_title(f"temperature {temperature:g}", fontsize=10)
    row[0].set_ylabel("probability of the reference's token")
    figure.supxlabel("deferral rate on the references", fontsize=10)
    style.finish(figure, np.array([row]), path, (*labels, ORACLE.name, "expert", "drafter"))


def _line(axes, line: list[Forced], label: str) -> None:
    if not line:
        return
    line = sorted(line, key=lambda f: (f.setting.knobs, f.setting.expert_truncation))
    xs = [f.deferral[0] for f in line]
    ys = [f.quality[0] for f in line]
    look = style.line(label)
    style.intervals(axes, xs, ys, [f.interval[0] for f in line], look["color"])
    axes.plot(xs, ys, label=label, **look)


def has_figure(points: Points, split: str) -> bool:
    """Returns whether a rule with a deferral rate was measured on the references."""
    return any(
        f.split == split and f.setting.method.measured and np.isfinite(f.deferral[0])
        for f in points.forced
    )


def records(points: Points) -> list[dict]:
    """Returns every figure of the rules and of the oracle's curve.

    Beside a rule stands the oracle's quality at the same deferral rate, between the points of its
    curve by a straight line: a lower bound of it, the curve being concave.
    """
    made = []
    for f in points.forced:
        oracle = points.oracle(f.setting.temperature, f.split)
        for deferral, quality, (low, high) in zip(f.deferral, f.quality, f.interval, strict=True):
            defers = bool(np.isfinite(deferral))
            made.append(
                {
                    "split": f.split,
                    "temperature": f.setting.temperature,
                    "method": f.setting.label,
                    "chosen": f.setting.choices,
                    "deferral_rate": deferral if defers else None,
                    "rejection_rate": f.rejection,
                    "quality": quality,
                    "quality_low": low,
                    "quality_high": high,
                    "oracle_quality": float(np.interp(deferral, oracle.deferral, oracle.quality))
                    if defers and oracle is not None
                    else None,
                }
            )
    return made
