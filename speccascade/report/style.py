"""What all figures share: colours, the grid of panels, the legend, the file."""

import re
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from etils import epath

if "matplotlib.pyplot" not in sys.modules:  # else a notebook may have chosen how it shows figures
    matplotlib.use("Agg")  # files only: no display is needed
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from speccascade.inference.methods import METHODS
from speccascade.inference.setting import Setting
from speccascade.kernels import KERNELS
from speccascade.rules import RULES

# Okabe and Ito's colours, told apart by colour-blind readers too; markers change with them.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D1F")
_MARKERS = "osD^vP<>Xph"
_BROKEN = ("--", ":", "-.")
# Those that most figures show, so that each has a colour to itself.
_FIRST = ("spec", "token_v3", "chow", "opt", "token_v2", "lossy", "learned", "bild")


def panels(rows: int, columns: int, **options):
    """Returns a figure and its axes [rows][columns], with room for a legend on the right."""
    return plt.subplots(
        rows,
        columns,
        figsize=(4.2 * columns + 2.4, 3.4 * rows + 0.6),
        squeeze=False,
        layout="constrained",
        **options,
    )


def line(label: str) -> dict:
    """Returns how the line of a label is drawn: a rule or method looks alike in every figure.

    What follows its name (limits, a drafter, a verifier) makes the line broken and its marks open.
    """
    name, rest = re.match(r"(\w*)(.*)", label).groups()
    # A new one comes last, so that it leaves the others alone.
    names = list(dict.fromkeys((*_FIRST, *RULES, *METHODS, *KERNELS)))
    return nth(names.index(name) if name in names else len(names), rest)


def nth(index: int, rest: str = "") -> dict:
    """Returns how the line of a number is drawn, broken by a text where there is one."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _BROKEN[zlib.crc32(rest.encode()) % len(_BROKEN)] if rest else "-",
        "markerfacecolor": "white" if rest else None,
        "markersize": 6,
        "linewidth": 1.3,
    }


def finish(figure, grid, path: str, order: Sequence[str] = ()) -> None:
    """Adds the legend, one entry per label, and writes the file.

    Args:
      figure: from `panels`.
      grid: its axes.
      path: a PNG.
      order: labels that stand first; others follow as they were drawn.
    """
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    labels = [label for label in dict.fromkeys((*order, *handles)) if label in handles]
    fits = len(labels) <= 18  # beside one row of panels
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside right upper",
        frameon=False,
        fontsize=9 if fits else 7,
        labelspacing=0.5 if fits else 0.3,
    )
    with epath.Path(path).open("wb") as file:
        figure.savefig(file, format="png", dpi=150)
    plt.close(figure)


def level(axes: Axes, height: float, name: str) -> None:
    """Draws what has a quality and no place on the axis below."""
    dashes = ":" if name == "drafter" else "--"
    axes.axhline(height, color="0.35", linestyle=dashes, linewidth=1.2, label=name)


def star(axes: Axes, x: float, height: float, name: str) -> None:
    """Marks the expert or the drafter alone, and its quality as a faint level."""
    dashes = ":" if name == "drafter" else "--"
    axes.axhline(height, color="0.75", linestyle=dashes, linewidth=1)
    axes.plot(
        x,
        height,
        "X" if name == "drafter" else "*",
        color="0.25",
        markersize=11,
        linestyle="none",
        label=name,
        zorder=5,
    )


def intervals(axes: Axes, xs, ys, bounds, colour: str) -> None:
    """Draws intervals, pairs of bounds, faintly behind a line; rounding may put one past y."""
    low, high = np.transpose(bounds)
    errors = np.maximum([np.subtract(ys, low), np.subtract(high, ys)], 0.0)
    axes.errorbar(xs, ys, errors, fmt="none", ecolor=colour, alpha=0.25, linewidth=1)


def line_name(setting: Setting) -> str:
    """Returns the line that a setting belongs to; the block verifier draws its own."""
    return setting.label + (" (block)" if setting.verifier == "block" else "")
