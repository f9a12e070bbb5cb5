"""The tables, the plots and the CSV of what was measured."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from speccascade.benchmark import table
from speccascade.benchmark.growth.series import Growth
from speccascade.report import style
from speccascade.rules import RULES

Row = dict[str, Any]

_OTHERS = 6  # the first of the looks that common rules do not have


def shown(name: str, growth: Growth, rows: Sequence[Row]) -> str:
    """Returns a growth as Markdown: its table and by how much all grew.

    Args:
      name: the growth's.
      growth: what it is.
      rows: its own, by size.
    """
    names = list(rows[0]["series"])
    head = [growth.grows, *names, *(f"MB, {series}" for series in names)]
    cells = [
        [str(row["size"])]
        + [f"{row['series'][series]['value']:.3g}" for series in names]
        + [f"{row['series'][series]['bytes'] / 1e6:.4g}" for series in names]
        for row in rows
    ]
    told = f"{growth.figure}; {growth.memory}"
    text = f"### {name}: {told}\n\n{table.markdown(head, cells)}\n"
    if len(rows) == 1:
        return text
    first, last = rows[0], rows[-1]
    grew = [
        f"{series} {_fold(first, last, series, 'value')}, its memory "
        f"{_fold(first, last, series, 'bytes')}"
        for series in names
    ]
    return f"{text}\n{last['size'] / first['size']:.3g} times as much: {'; '.join(grew)}.\n"


def _fold(first: Row, last: Row, series: str, what: str) -> str:
    return f"{last['series'][series][what] / first['series'][series][what]:.3g}-fold"


def write(workdir: str, growths: Mapping[str, Growth], rows: Mapping[str, Sequence[Row]]) -> None:
    """Writes `growth.csv` and a plot of each growth, `growth_NAME.png`.

    Args:
      workdir: where they go.
      growths: by name.
      rows: theirs, by size, of those that were measured.
    """
    with open(os.path.join(workdir, "growth.csv"), "w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["growth", "size", "series", "figure", "value", "megabytes", "trials"])
        for name, own in rows.items():
            for row in own:
                for series, found in row["series"].items():
                    numbers = f"{found['value']:.4g}", f"{found['bytes'] / 1e6:.4g}"
                    told = name, row["size"], series, growths[name].figure
                    lines.writerow([*told, *numbers, len(found["seconds"])])
    for name, own in rows.items():
        figure, grid = style.panels(1, 2)
        for axes, what, scale in zip(grid[0], ("value", "bytes"), (1, 1e-6), strict=True):
            _draw(axes, own, what, scale)
            axes.set_xlabel(growths[name].grows, fontsize=9)
        grid[0, 0].set_ylabel(growths[name].figure, fontsize=9)
        grid[0, 1].set_ylabel(growths[name].memory, fontsize=9)
        style.finish(figure, grid, os.path.join(workdir, f"growth_{name}.png"))


def _draw(axes: Axes, rows: Sequence[Row], what: str, scale: float) -> None:
    sizes = [row["size"] for row in rows]
    for i, series in enumerate(rows[0]["series"]):
        values = [scale * row["series"][series][what] for row in rows]
        look = style.line(series) if series in RULES else style.nth(_OTHERS + i)
        axes.plot(sizes, values, label=series, **look)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
