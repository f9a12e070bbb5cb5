"""A comparison as text for the terminal: in colour, or with marks where there is none."""

import os
import textwrap
import unicodedata
from typing import TextIO

from speccascade.trace import display
from speccascade.trace.display import NAMES, number
from speccascade.trace.record import Block, Kind, Token
from speccascade.trace.tracing import Comparison, Trace

# SGR codes. Okabe and Ito's colours as backgrounds with a foreground of their own: they read alike
# on dark and light terminals. What is kept has none.
_COLOURS = {
    Kind.KEPT: "",
    Kind.DEFERRED: "48;2;86;180;233;38;2;0;0;0",
    Kind.RULE: "48;2;230;159;0;38;2;0;0;0",
    Kind.REPLACED: "48;2;204;121;167;38;2;0;0;0",
    Kind.BONUS: "48;2;0;158;115;38;2;0;0;0",
    Kind.DISCARDED: "2;9",
}
_MARKS = {
    Kind.KEPT: ("", ""),
    Kind.DEFERRED: ("~", "~"),
    Kind.RULE: ("[", "]"),
    Kind.REPLACED: ("{", "}"),
    Kind.BONUS: ("<", ">"),
    Kind.DISCARDED: ("-", "-"),
}
_CUT = "✂"
_BETWEEN = "|"


def wants_colour(stream: TextIO) -> bool:
    """Returns whether to colour: the stream is a terminal and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(comparison: Comparison, *, colour: bool, numbers: bool = True, width: int = 100) -> str:
    """Returns the comparison as text.

    Args:
      comparison: what to show.
      colour: whether kinds are told by colours; by marks where not.
      numbers: whether each answer is followed by a table of its positions.
      width: columns, for the answers.
    """
    painter = _Painter(colour)
    lines = [
        painter.bold(comparison.pair),
        *(f"  {line}" for line in _safe_lines(comparison.prompt)),
        display.common(comparison),
        "",
        *_legend(painter),
    ]
    for trace in comparison.traces:
        heading = f"{display.title(trace)}: {display.rate(trace)} tokens per expert call"
        lines += ["", painter.bold(heading), ""]
        lines += [f"  {line}" for line in _flow(painter, trace, width - 2)]
        facts = "; ".join(display.facts(comparison, trace)) + "."
        lines += ["", *textwrap.wrap(facts, width, initial_indent="  ", subsequent_indent="  ")]
        if numbers:
            lines += ["", *(f"  {line}" for line in _table(painter, trace))]
    return "\n".join(lines) + "\n"


def _safe_lines(text: str) -> list[str]:
    return [display.line(part) for part in text.strip().splitlines()]


class _Painter:
    """Colours or marks."""

    def __init__(self, colour: bool):
        self._colour = colour

    def kind(self, kind: Kind, text: str, first: bool = True, last: bool = True) -> str:
        """Returns a text shown as a kind; marks stand around a run of one kind, from its first
        token to its last."""
        if self._colour:
            return self._sgr(_COLOURS[kind], text)
        before, after = _MARKS[kind]
        return (before if first else "") + text + (after if last else "")

    def bold(self, text: str) -> str:
        return self._sgr("1", text) if self._colour else text

    def dim(self, text: str) -> str:
        return self._sgr("2", text) if self._colour else text

    def width(self, kind: Kind, text: str) -> int:
        return _columns(text) + (0 if self._colour else sum(map(len, _MARKS[kind])))

    def _sgr(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if code else text


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _legend(painter: _Painter) -> list[str]:
    size = max(painter.width(kind, name) for kind, name in NAMES.items())
    rows = []
    for kind, name in NAMES.items():
        pad = " " * (size - painter.width(kind, name))
        rows.append(f"  {painter.kind(kind, name)}{pad}  {display.LEGEND[kind]}")
    rows.append(f"  {_CUT.ljust(size)}  {display.CUT}")
    rows.append(f"  {_BETWEEN.ljust(size)}  between two blocks, each one call of the expert")
    return rows


def _flow(painter: _Painter, trace: Trace, width: int) -> list[str]:
    """Returns the answer, broken between tokens and after its own line ends."""
    lines, line, room = [], "", width

    def add(text, size, ends=False):
        nonlocal line, room
        if size > room and line:
            lines.append(line)
            line, room = "", width
        line, room = line + text, room - size
        if ends:
            lines.append(line)
            line, room = "", width

    for i, block in enumerate(trace.blocks):
        if i:
            add(painter.dim(_BETWEEN), 1)
        kinds = [None, *(token.kind for token in block.tokens), None]
        for before, token, after in zip(kinds, block.tokens, kinds[2:], strict=False):
            if token.offset == block.strict_cut:
                add(_CUT, 1)
            text = display.visible(token)
            shown = painter.kind(token.kind, text, token.kind != before, token.kind != after)
            add(shown, painter.width(token.kind, text), "\n" in token.text)
    return lines + [line] if line else lines


def _table(painter: _Painter, trace: Trace) -> list[str]:
    """Returns a line per token, thrown-away ones included, block by block.

    The columns accept and strict are the chances that a draft token is kept, by the rule and by
    strict verification.
    """
    size = max(_columns(display.visible(token)) for token in trace.tokens + trace.discarded)
    size = min(max(size, 5), 24)
    names = max(map(len, NAMES.values())) + 2
    head = f"{'block':>5}  {'token'.ljust(size)}  {'who wrote it'.ljust(names)}"
    head += "".join(f"{name:>8}" for name in ("q", "p", "pi", "accept", "strict"))
    rows = [painter.bold(head)]
    for count, block in enumerate(trace.blocks, 1):
        for i, token in enumerate((*block.tokens, *block.discarded)):
            label = "" if i else str(count)
            rows.append(f"{label:>5}  " + _row(painter, block, token, size, names))
    return rows


def _row(painter: _Painter, block: Block, token: Token, size: int, names: int) -> str:
    text = display.visible(token)
    while _columns(text) > size:
        text = text[:-2] + "…"
    pad = " " * (size - _columns(text))
    name = NAMES[token.kind]
    shown = token.q, token.p, token.pi, token.accept, token.strict_accept
    values = "".join(f"{number(x):>8}" for x in shown)
    gap = " " * (names - painter.width(token.kind, name))
    remark = display.remark(block, token)
    return f"{text}{pad}  {painter.kind(token.kind, name)}{gap}{values}  {remark}".rstrip()
