"""Tables of text, as Markdown and LaTeX, and records of figures as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOTHING = "–"


class Table(NamedTuple):
    """A table, its cells ready to print.

    Attributes:
      title: what stands above it.
      columns: their names.
      rows: one cell per column each.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Returns a figure as text, a dash for none."""
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def interval(
    value: float | None,
    bounds: tuple[float, float] | None,
    digits: int = 3,
    sign: bool = False,
) -> str:
    """Returns a figure and its interval as text, "1.00 [0.95, 1.05]"."""
    if value is None or bounds is None:
        return number(value, digits, sign)
    low, high = (number(bound, digits, sign) for bound in bounds)
    return f"{number(value, digits, sign)} [{low}, {high}]"


def judged(text: str, verdict: str | None) -> str:
    """Returns text with a verdict behind it, where there is one."""
    return text if verdict is None else f"{text} {verdict}"


def markdown(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Returns tables, and notes below them, as Markdown."""
    lines = []
    for table in tables:
        lines += [f"**{table.title}**", ""]
        lines.append("| " + " | ".join(table.columns) + " |")
        lines.append("|" + "---|" * len(table.columns))
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines.append("")
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def latex(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Returns the same as LaTeX, for the package booktabs."""
    lines = []
    for table in tables:
        lines += [
            f"% {table.title}",
            r"\begin{tabular}{ll" + "r" * (len(table.columns) - 2) + "}",
            r"\toprule",
            " & ".join(_escape(name) for name in table.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_escape(cell) for cell in row) + r" \\" for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    lines += [f"% {note}" for note in notes]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    for char in "_%&#":
        text = text.replace(char, "\\" + char)
    return text.replace(NOTHING, "--")


def comma_separated(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns one line per record, everything in columns of its own; what is missing is empty."""
    file = io.StringIO()
    if records:
        longest_first = sorted(records, key=len, reverse=True)
        names = dict.fromkeys(name for record in longest_first for name in record)
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return file.getvalue()
