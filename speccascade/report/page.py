"""A report as one self-contained web page: what comes out, plots, a table to sort, the answers.

`page.html`, `page.css` and `page.js` beside this file are its parts. All figures are made here;
the script sorts, filters and shows.
"""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from speccascade import web
from speccascade.report import columns, headline, scatter, tradeoffs
from speccascade.report.answers import kept
from speccascade.report.choice import TEST
from speccascade.report.every_setting import name
from speccascade.report.notes import about, is_timed
from speccascade.report.points import Points

EXAMPLES = 40  # whose answers a page holds


def render(points: Points, workdir: str, config: Mapping[str, Any], asked: Sequence[str]) -> str:
    """Returns the page.

    Args:
      points: what was measured.
      workdir: of the evaluation, for its answers.
      config: its config.
      asked: see `columns.shown`.
    """
    examples, answers = kept(workdir, config, TEST, EXAMPLES)
    return web.fill(
        __package__,
        title=f"Speculative cascades: {html.escape(str(points.shared['task']))}",
        task=html.escape(str(points.shared["task"])),
        pair=html.escape(str(config["pair"])),
        verdicts="".join(f"<li>{html.escape(line)}</li>" for line in headline.sentences(points)),
        legend=scatter.legend(points, TEST),
        across=str(len(points.temperatures())),
        panels=_panels(points),
        head=_head(asked),
        rows=_rows(points, asked),
        notes="".join(f"<li>{html.escape(note)}</li>" for note in about(points)),
        answers=_data({"examples": examples, "settings": answers}),
    )


def _panels(points: Points) -> str:
    axes = [tradeoffs.SPEEDUP] if is_timed(points) else []
    return "".join(
        scatter.panel(points, temperature, TEST, axis, f"temperature {temperature:g}")
        for axis in (*axes, tradeoffs.CALLS)
        for temperature in points.temperatures()
    )


def _head(asked: Sequence[str]) -> str:
    headings = ("setting", "T", *(c.heading for c in columns.shown(asked).values()))
    return "".join(
        f'<th scope="col"><button type="button">{html.escape(heading)}</button></th>'
        for heading in headings
    )


def _rows(points: Points, asked: Sequence[str]) -> str:
    own = columns.shown(asked).values()
    made = []
    for point in points.on(TEST):
        setting = point.setting
        label = points.mark(setting, name(setting))
        cells = (f"{setting.temperature:g}", *(column.text(point, points) for column in own))
        made.append(
            f'<tr><th scope="row">{html.escape(label)}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    return "\n".join(made)


def _data(value: Any) -> str:
    """Returns JSON that may stand in a page: no tag begins in it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
