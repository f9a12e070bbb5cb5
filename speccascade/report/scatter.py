"""Trade-off curves as SVG in a page: every setting is a mark that tells its figures."""

import html
import json
import math
from collections.abc import Sequence

from speccascade.inference.methods import EXPERT
from speccascade.report import columns, style
from speccascade.report.every_setting import name
from speccascade.report.points import Point, Points
from speccascade.report.tradeoffs import Axis, reference

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 44
# Marks around a centre, by matplotlib's letter for them; what is not here is a circle.
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "s": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
    "D": [(0, -6), (5, 0), (0, 6), (-5, 0)],
    "^": [(0, -5.5), (5.5, 4), (-5.5, 4)],
    "v": [(0, 5.5), (5.5, -4), (-5.5, -4)],
    "<": [(-5.5, 0), (4, -5.5), (4, 5.5)],
    ">": [(5.5, 0), (-4, -5.5), (-4, 5.5)],
    "P": [
        (x * sign, y * sign)
        for sign in (1, -1)
        for x, y in ((-2, -5.5), (2, -5.5), (2, -2), (5.5, -2), (5.5, 2), (2, 2))
    ],
    "X": [
        (x * sign, y * sign)
        for sign in (1, -1)
        for x, y in ((-5, -2.5), (-2.5, -5), (0, -2.5), (2.5, -5), (5, -2.5), (2.5, 0))
    ],
    "p": [(5.5 * math.sin(math.tau * i / 5), -5.5 * math.cos(math.tau * i / 5)) for i in range(5)],
    "h": [(5.5 * math.sin(math.tau * i / 6), -5.5 * math.cos(math.tau * i / 6)) for i in range(6)],
    "*": [
        (radius * math.sin(math.tau * i / 10), -radius * math.cos(math.tau * i / 10))
        for i, radius in enumerate((8, 3.4) * 5)
    ],
}


def panel(points: Points, temperature: float, split: str, axis: Axis, title: str) -> str:
    """Returns the settings of a temperature by quality and a figure, or "" where none has it.

    The drafter alone stands below in words: it is so far off that nothing else would be told apart.
    """
    placed = [
        (axis.value(p), p)
        for p in points.on(split)
        if p.setting.temperature == temperature and axis.value(p) is not None
    ]
    aside = [(x, p) for x, p in placed if reference(p) == "drafter"]
    placed = [place for place in placed if place not in aside]
    if not placed:
        return ""
    xs, ys = [x for x, _ in placed], [p.quality for _, p in placed]
    across, up = _Scale(xs, _LEFT, _WIDTH - _RIGHT), _Scale(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<line x1="{across(t):.1f}" x2="{across(t):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        f'<text x="{across(t):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{t:g}</text>'
        for t in across.ticks
    ] + [
        f'<line y1="{up(t):.1f}" y2="{up(t):.1f}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{up(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in up.ticks
    ]
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts += [
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(axis.label)}</text>",
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">quality</text>',
    ]
    lines: dict[str, list[tuple[float, Point]]] = {}
    for x, p in placed:
        lines.setdefault(style.line_name(p.setting), []).append((x, p))
    drawn = "".join(
        _line(label, [(across(x), up(p.quality), p) for x, p in own], points)
        for label, own in lines.items()
    )
    told = "".join(
        f"<p>The drafter alone: quality {p.quality:.3g} at {x:.3g}.</p>" for x, p in aside
    )
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} '
        f'{_HEIGHT}" role="group" aria-label="{html.escape(title)}"><g class="axes">'
        f"{''.join(parts)}</g>{drawn}</svg>{told}</figure>"
    )


def legend(points: Points, split: str) -> str:
    """Returns the lines of all panels as buttons that make one stand out."""
    labels = dict.fromkeys(
        style.line_name(point.setting)
        for point in points.on(split)
        if reference(point) != "drafter"
    )
    return "".join(
        f'<button type="button" aria-pressed="false" data-line="{html.escape(label)}" '
        f'style="--own:{_colour(label)}"><svg viewBox="-8 -8 16 16" aria-hidden="true">'
        f"{_mark(label, 0, 0)}</svg>{html.escape(label)}</button>"
        for label in labels
    )


def _line(label: str, own: Sequence[tuple[float, float, Point]], points: Points) -> str:
    ordered = sorted(own, key=lambda place: (place[2].setting.draft_length or 0, place[0]))
    by_length: dict[int | None, list[str]] = {}
    for x, y, p in ordered:
        by_length.setdefault(p.setting.draft_length, []).append(f"{x:.1f},{y:.1f}")
    paths = "".join(
        f'<polyline points="{" ".join(way)}"/>' for way in by_length.values() if len(way) > 1
    )
    marks = "".join(
        f'<g class="point" tabindex="0" role="img" data-card="{_card(p, points)}" '
        f'aria-label="{html.escape(name(p.setting))}">{_mark(label, x, y)}</g>'
        for x, y, p in ordered
    )
    return (
        f'<g class="line" data-line="{html.escape(label)}" style="--own:{_colour(label)}">'
        f"{paths}{marks}</g>"
    )


def _card(point: Point, points: Points) -> str:
    figures = [[c.heading, c.text(point, points)] for c in columns.shown().values()]
    title = f"{name(point.setting)}, temperature {point.setting.temperature:g}"
    return html.escape(json.dumps({"title": title, "figures": figures}))


def _mark(label: str, x: float, y: float) -> str:
    look = style.line(label)
    fill = "hollow" if look["markerfacecolor"] else "full"
    corners = _CORNERS.get("*" if label == EXPERT.name else look["marker"])
    if corners is None:
        return f'<circle class="{fill}" cx="{x:.1f}" cy="{y:.1f}" r="4.6"/>'
    places = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{fill}" points="{places}"/>'


def _colour(label: str) -> str:
    colour = style.line(label)["color"]
    return "var(--ink)" if colour == "#000000" or label == EXPERT.name else colour


class _Scale:
    """Values along an axis, with a little room at the ends and round numbers to mark it by."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        low, high = min(values), max(values)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
        self._low, self._high, self._start, self._end = low - room, high + room, start, end
        step = 10 ** math.floor(math.log10((self._high - self._low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self._high - self._low) / (m * step) <= 5)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        self.ticks = [round(i * step, 10) for i in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)
