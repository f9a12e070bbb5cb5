"""Questions of Spec-Bench, and of SPEED-Bench as its own tools prepare it.

Spec-Bench's `question.jsonl` has one question a line,

    {"question_id": 81, "category": "writing", "turns": ["Compose ...", "Rewrite ..."]}

and other fields, which nothing here reads. SPEED-Bench's rows, Parquet or JSON lines, have an
`src_id` beside these, categories of their own, and instead of `turns` perhaps `messages`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from speccascade.errors import UserError
from speccascade.inputs import plain_text, text_files

_MT_BENCH = (
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
)
_ALONE = ("translation", "summarization", "qa", "math_reasoning", "rag")
# Spec-Bench's thirteen categories, and which of its six tasks each belongs to.
TASKS = {**dict.fromkeys(_MT_BENCH, "mt_bench"), **{name: name for name in _ALONE}}

_SPEED_BENCH = "src_id"  # the field that its rows have and Spec-Bench's have not
# How SPEED-Bench marks a text that was not fetched from where it belongs.
_UNPREPARED = "FULL BENCHMARK DATA SHOULD BE FETCHED"


class Question(NamedTuple):
    """A conversation's user.

    Attributes:
      id: a number or a text.
      category: as the file has it.
      task: what it is reported under.
      turns: what the user says, in order.
    """

    id: int | str
    category: str
    task: str
    turns: tuple[str, ...]


def read(path: text_files.Path) -> list[Question]:
    """Reads a file of questions, in its order.

    Raises:
      UserError: a line is not as it must be, an id stands twice, or there are none.
    """
    found: dict[int | str, Question] = {}
    for number, row in text_files.read_rows(path):
        try:
            question = _question(row)
            if question.id in found:
                raise UserError(f"question_id {question.id!r} stands above already; keep one")
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
        found[question.id] = question
    if not found:
        raise UserError(f"{path} has no questions")
    return list(found.values())


def limited(questions: Iterable[Question], most: int) -> list[Question]:
    """Returns the first `most` questions of each category."""
    taken: dict[str, int] = {}
    kept = []
    for question in questions:
        taken[question.category] = taken.get(question.category, 0) + 1
        if taken[question.category] <= most:
            kept.append(question)
    return kept


def _question(row: Mapping[str, Any]) -> Question:
    if missing := [name for name in ("question_id", "category") if name not in row]:
        raise UserError(f"it has no {missing[0]}; give a file of Spec-Bench's or SPEED-Bench's")
    index = row["question_id"]
    if isinstance(index, bool) or not isinstance(index, (int, str)):
        raise UserError(f"question_id must be a number or a text, not {plain_text.show(index)}")
    category = plain_text.one(row["category"], "category")
    turns = _turns(row)
    if _SPEED_BENCH in row:
        return Question(index, category, category, turns)
    if category not in TASKS:
        raise UserError(f"category {category!r} is unknown; choose one of: {', '.join(TASKS)}")
    return Question(index, category, TASKS[category], turns)


def _turns(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "turns" not in row and isinstance(row.get("messages"), list):
        given = [m.get("content") if isinstance(m, dict) else m for m in row["messages"]]
        turns = plain_text.several(given, "messages")
    elif not isinstance(row.get("turns"), list):
        raise UserError(f"turns must be a list of texts, not {plain_text.show(row.get('turns'))}")
    else:
        turns = plain_text.several(row["turns"], "turns")
    if not turns or not all(turn.strip() for turn in turns):
        raise UserError("turns must be a list of at least one text, none of them blank")
    if any(turn.startswith(_UNPREPARED) for turn in turns):
        raise UserError(
            "its text was not fetched; prepare the file with SPEED-Bench's prepare_data.py"
        )
    return turns
