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


def speed_head() -> str:
    """Returns the first two lines of the table of decoding."""
    return head(_COLUMNS)


def speed_row(case: Case, found: Speed, base: float) -> str:
    """Returns a line of the table of decoding; its speed-up is over `base`, in tokens/s."""
    ratio = found.tokens_per_second / base
    expected = "" if found.expected is None else f" ({found.expected:.2f})"
    return line(
        [
            str(case),
            f"{found.tokens_per_second:.1f}",
            f"{ratio:.2f}",
            _number(found.acceptance, ".2f"),
            f"{found.tokens_per_block:.2f}{expected}",
            f"{1000 * found.block_seconds:.3g}",
            f"{found.busy:.0%}",
            _number(found.drafter_steps, ".3g"),
            _number(found.neither, ".0%"),
            _number(found.allowed, ".2f"),
            _number(found.allowed and ratio / found.allowed, ".2f"),
        ]
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of texts."""
    return "\n".join([head(columns), *map(line, rows)])


def head(columns: Sequence[str]) -> str:
    """Returns the first two lines of a table."""
    return line(columns) + "\n" + "|" + "---|" * len(columns)


def line(cells: Sequence[str]) -> str:
    """Returns one line of a table."""
    return "| " + " | ".join(cells) + " |"
