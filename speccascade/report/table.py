"""The table, as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from speccascade.report.choice import Choice
from speccascade.report.points import Point

NOTHING = "–"

_COLUMNS: tuple[tuple[str, Callable[[Choice], str]], ...] = (
    ("method", lambda c: c.label),
    ("chosen", lambda c: c.setting.choices or NOTHING),
    ("speed-up", lambda c: _judged(_speedup(c.test), c.speed_verdict)),
    ("quality", lambda c: _interval(c.test.quality, c.test.interval)),
    ("less the expert's", lambda c: _judged(_difference(c), c.quality_verdict)),
    ("tokens per expert call", lambda c: _number(c.test.rates["tokens_per_expert_call"], 2)),
    ("rejection rate", lambda c: _number(c.test.rates["rejection_rate"])),
)


def _number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def _interval(value, interval, digits: int = 3, sign: bool = False) -> str:
    if value is None or interval is None:
        return _number(value, digits, sign)
    low, high = (_number(bound, digits, sign) for bound in interval)
    return f"{_number(value, digits, sign)} [{low}, {high}]"


def _speedup(test: Point) -> str:
    return _interval(test.speedup, test.timing.interval, digits=2) if test.timing else NOTHING


def _difference(choice: Choice) -> str:
    return _interval(choice.difference, choice.difference_interval, sign=True)


def _judged(text: str, verdict: str | None) -> str:
    return text if verdict is None else f"{text} {verdict}"


def _cells(choice: Choice) -> list[str]:
    if choice.setting is None:
        return [choice.label, "none admitted", *[NOTHING] * (len(_COLUMNS) - 2)]
    return [make(choice) for _, make in _COLUMNS]


def _title(choices: Sequence[Choice]) -> str:
    return f"{choices[0].criterion.title}, temperature {choices[0].temperature:g}"


def markdown(tables: Sequence[Sequence[Choice]], notes: Sequence[str]) -> str:
    """Returns the tables, each a list of choices of one criterion and temperature, as Markdown."""
    lines = []
    for choices in tables:
        lines += [f"**{_title(choices)}**", ""]
        lines.append("| " + " | ".join(name for name, _ in _COLUMNS) + " |")
        lines.append("|" + "---|" * len(_COLUMNS))
        lines += ["| " + " | ".join(_cells(choice)) + " |" for choice in choices]
        lines.append("")
    lines += [f"- {note}" for note in notes]
    return "\n".join(lines) + "\n"


def latex(tables: Sequence[Sequence[Choice]], notes: Sequence[str]) -> str:
    """Returns the same tables as LaTeX, for the package booktabs."""
    lines = []
    for choices in tables:
        lines += [
            f"% {_title(choices)}",
            r"\begin{tabular}{ll" + "r" * (len(_COLUMNS) - 2) + "}",
            r"\toprule",
            " & ".join(_escape(name) for name, _ in _COLUMNS) + r" \\",
            r"\midrule",
            *(" & ".join(_escape(cell) for cell in _cells(choice)) + r" \\" for choice in choices),
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


def comma_separated(tables: Sequence[Sequence[Choice]]) -> str:
    """Returns one line per choice, everything in columns of its own; what is missing is empty."""
    file = io.StringIO()
    records = [_record(choice) for choices in tables for choice in choices]
    writer = csv.DictWriter(file, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _record(choice: Choice) -> dict[str, Any]:
    there = choice.setting is not None
    setting, test, validation = choice.setting, choice.test, choice.validation
    nobody = (None, None)
    quality = test.interval if there else nobody
    difference = choice.difference_interval or nobody
    speed = test.timing.interval if there and test.timing else nobody
    return {
        "criterion": choice.criterion.name,
        "temperature": choice.temperature,
        "method": choice.label,
        "knobs": " ".join(f"{k}={v:g}" for k, v in setting.knobs) if there else None,
        "drafter_truncation": _pairs(setting.drafter_truncation) if there else None,
        "expert_truncation": _pairs(setting.expert_truncation) if there else None,
        "draft_length": setting.draft_length if there else None,
        "verifier": setting.verifier if there else None,
        "middle_rule": setting.middle_rule if there else None,
        "middle_knobs": _pairs(setting.middle_knobs) if there else None,
        "middle_draft_length": setting.middle_draft_length if there else None,
        "num_examples": len(test.scores) if there else None,
        "speedup": test.speedup if there else None,
        "speedup_low": speed[0],
        "speedup_high": speed[1],
        "speed_verdict": choice.speed_verdict,
        "quality": test.quality if there else None,
        "quality_low": quality[0],
        "quality_high": quality[1],
        "difference": choice.difference,
        "difference_low": difference[0],
        "difference_high": difference[1],
        "quality_verdict": choice.quality_verdict,
        "tokens_per_expert_call": test.rates["tokens_per_expert_call"] if there else None,
        "rejection_rate": test.rates["rejection_rate"] if there else None,
        "deferral_rate": test.rates["deferral_rate"] if there else None,
        "validation_quality": validation.quality if there else None,
        "validation_speedup": validation.speedup if there else None,
    }


def _pairs(pairs) -> str:
    return " ".join(f"{k}={v:g}" for k, v in pairs)
