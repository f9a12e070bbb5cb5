"""What a reader must know of the rows: what was shortened, what was timed otherwise than scored.

Rows that were measured before they said so say nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING
from speccascade.inference.reading import from_fields

Row = Mapping[str, Any]


def caveats(rows: Sequence[Row]) -> list[str]:
    """Returns a sentence without its full stop for each kind of caveat, none where there is none.

    Args:
      rows: those that a report is made of.
    """
    known = [row for row in rows if "answers_cut" in row]
    by_kind = {k: [r for r in known if r["kind"] == k] for k in (QUALITY, TEACHER_FORCED)}
    timed = [row for row in rows if row["kind"] == TIMING and row.get("answers_compared")]
    return [*_prompts(known), *_answers(by_kind[QUALITY]), *_forced(by_kind[TEACHER_FORCED])] + (
        _timed(timed)
    )


def _prompts(rows: Sequence[Row]) -> list[str]:
    """All settings of a split read the same prompts."""
    cut = {row["split"]: (row["prompts_cut"], row["num_examples"]) for row in rows}
    told = [f"{count} of {of} of {split}" for split, (count, of) in cut.items() if count]
    return [f"Prompts that were cut to the pair's lengths: {', '.join(told)}"] if told else []


def _answers(rows: Sequence[Row]) -> list[str]:
    if not any(row["answers_cut"] for row in rows):
        return []
    worst = max(rows, key=lambda row: row["answers_cut"] / row["num_examples"])
    return [
        "Answers that ended for want of room (max_new_tokens or the pair's lengths), at neither an "
        f"end-of-sequence nor a stop string: {_share(rows, 'answers_cut', 'num_examples')}; most "
        f"under {from_fields(worst)} on {worst['split']}, {worst['answers_cut']} of "
        f"{worst['num_examples']}"
    ]


def _forced(rows: Sequence[Row]) -> list[str]:
    cut = {row["split"]: (row["answers_cut"], row["num_examples"]) for row in rows}
    told = [f"{count} of {of} of {split}" for split, (count, of) in cut.items() if count]
    return [f"Reference answers that were cut to the pair's lengths: {', '.join(told)}"] * bool(
        told
    )


def _timed(rows: Sequence[Row]) -> list[str]:
    if not any(row["answers_differing"] for row in rows):
        return []
    return [
        "Timed answers, decoded one by one, that are not those that were scored, decoded in "
        f"batches: {_share(rows, 'answers_differing', 'answers_compared')}; sums are rounded "
        "otherwise there"
    ]


def _share(rows: Sequence[Row], part: str, whole: str) -> str:
    some, every = (sum(row[name] for row in rows) for name in (part, whole))
    percent = float(f"{100 * some / every:.2g}")
    return f"{some:,} of {every:,} ({percent:g} %)"
