"""The benchmark's tables, as Markdown."""

from collections.abc import Mapping, Sequence

from speccascade.benchmark.decoding import Speed
from speccascade.benchmark.subject import Case

_COLUMNS = (
    "method",
    "tokens/s",
    "speed-up",
    "acceptance",
    "tokens per block (formula)",
    "ms per block",
    "rows busy",
    "drafter steps",
    "neither model",
    "speed-up allowed",
    "measured / allowed",
)


def steps(times: Mapping[tuple[str, int], float]) -> str:
    """Returns the table of step times, given in seconds by role and tokens per row."""
    roles = dict.fromkeys(role for role, _ in times)
    widths = sorted({width for _, width in times})
    rows = [[role, *(f"{1000 * times[role, width]:.3g}" for width in widths)] for role in roles]
    return markdown(["", *map(str, widths)], rows)


def speeds(found: Mapping[Case, Speed]) -> str:
    """Returns the table of decoding; speed-ups are over the first case."""
    base = next(iter(found.values())).tokens_per_second
    rows = []
    for case, s in found.items():
        ratio = s.tokens_per_second / base
        expected = "" if s.expected is None else f" ({s.expected:.2f})"
        rows.append(
            [
                _name(case),
                f"{s.tokens_per_second:.1f}",
                f"{ratio:.2f}",
                _number(s.acceptance, ".2f"),
                f"{s.tokens_per_block:.2f}{expected}",
                f"{1000 * s.block_seconds:.3g}",
                f"{s.busy:.0%}",
                _number(s.drafter_steps, ".3g"),
                _number(s.neither, ".0%"),
                _number(s.allowed, ".2f"),
                _number(s.allowed and ratio / s.allowed, ".2f"),
            ]
        )
    return markdown(_COLUMNS, rows)


def _name(case: Case) -> str:
    parts = [case.setting.label, case.setting.choices]
    if case.agreement is not None:
        parts.append(f"agreement={case.agreement:g}")
    return " ".join(part for part in parts if part)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of texts."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
