"""Saved answers of any engine, by the form of their rows.

A new form is a row in `FORMS`: the fields by which it is known, and what reads a row.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from speccascade.errors import UserError
from speccascade.inputs import plain_text, values

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One saved answer.

    Attributes:
      where: file and line, for messages.
      id: of its prompt.
      draw: which of several answers to the prompt it is.
      text: None where there is none.
      scores: what its file says of it, by field; any values.
      tokens: how many were generated; None where that is not known, like all that follow.
      seconds: that they took.
      emitted: tokens of the passes that `passes` counts.
      passes: of the model that verifies.
    """

    where: str
    id: str
    draw: Any = 0
    text: str | None = None
    scores: Row = dataclasses.field(default_factory=dict)
    tokens: float | None = None
    seconds: float | None = None
    emitted: float | None = None
    passes: float | None = None


class Form(NamedTuple):
    """A form of rows.

    Attributes:
      name: for people.
      fields: that a row must have.
      known: bool of a row that has them, whether it is of this form.
      samples: from file and line, and a row, to its samples.
    """

    name: str
    fields: tuple[str, ...]
    known: Callable[[Row], bool]
    samples: Callable[[str, Row], list[Sample]]


def form(row: Row, where: str) -> Form:
    """Returns the form of a file by its first row.

    Raises:
      UserError: it is none that is known.
    """
    for one in FORMS:
        if all(field in row for field in one.fields) and one.known(row):
            return one
    known = "; ".join(f"{one.name} ({', '.join(one.fields)})" for one in FORMS)
    raise UserError(
        f"{where} has fields {', '.join(row) or 'none'}, no form that is known here: {known}"
    )


def _id(row: Row, field: str) -> str:
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{field}={plain_text.show(value)} must be a whole number or a text")
    return str(value)


def _number(row: Row, field: str, least: float = 0.0) -> float | None:
    """Returns a number that may be missing."""
    if row.get(field) is None:
        return None
    found = values.number(field, row[field])
    if found < least:
        raise UserError(f"{field}={found:g} must be at least {least:g}")
    return found


def _total(row: Row, field: str) -> float | None:
    """Returns the sum of a list of numbers, one for each turn, that may be missing."""
    if not row.get(field):
        return None
    return math.fsum(_number({field: x}, field) or 0.0 for x in values.numbers(field, row[field]))


def _text(row: Row, field: str) -> str | None:
    return None if row.get(field) is None else plain_text.one(row[field], field)


# ---- Spec-Bench ----


def _spec_bench(where: str, row: Row) -> list[Sample]:
    choices = row["choices"]
    if not isinstance(choices, list) or not choices:
        raise UserError(f"choices={plain_text.show(choices)} must be a list of answers")
    found = []
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict) or "turns" not in choice:
            raise UserError(f"choices[{place}] has no turns")
        found.append(
            Sample(
                where,
                _id(row, "question_id"),
                draw=place,
                text="\n\n".join(plain_text.several(choice["turns"], "turns")),
                tokens=_total(choice, "new_tokens"),
                seconds=_total(choice, "wall_time"),
                emitted=_total(choice, "accept_lengths"),
                passes=len(choice.get("accept_lengths") or ()) or None,
            )
        )
    return found


# ---- lm-evaluation-harness, --log_samples ----

# What a row holds beside its metrics, where it does not name these.
_HARNESS = frozenset("doc_id doc target arguments resps filtered_resps filter doc_hash".split())


def _harness(where: str, row: Row) -> list[Sample]:
    names = row.get("metrics")
    if names is None:
        names = [k for k, v in row.items() if k not in _HARNESS and isinstance(v, int | float)]
    scores = {name: row[name] for name in names if name in row}
    texts = _answers(row.get("filtered_resps", row.get("resps")))
    return [Sample(where, _id(row, "doc_id"), i, text, scores) for i, text in enumerate(texts)]


def _answers(responses: Any) -> list[str | None]:
    """Returns the texts of a document's one request; of likelihoods there are none."""
    found = responses[0] if isinstance(responses, list) and len(responses) == 1 else None
    texts = [found] if isinstance(found, str) else found
    if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
        return texts
    return [None]


def harness_filter(row: Row) -> str:
    """Returns the filter whose outcome a row of lm-evaluation-harness is."""
    return str(row.get("filter", "none"))


# ---- ours, and plain ----


def _kept(where: str, row: Row) -> list[Sample]:
    # Its seconds are a share of a batch's: no time of its own.
    counts = row["counts"]
    return [
        Sample(
            where,
            _id(row, "id"),
            text=_text(row, "text"),
            tokens=_count(row),
            emitted=_number(counts, "emitted"),
            passes=_number(counts, "expert_calls") or None,
        )
    ]


_PLAIN = frozenset("id sample text tokens seconds acceptance".split())


def _plain(where: str, row: Row) -> list[Sample]:
    accepted = _number(row, "acceptance")
    return [
        Sample(
            where,
            _id(row, "id"),
            draw=row.get("sample", 0),
            text=_text(row, "text"),
            scores={name: value for name, value in row.items() if name not in _PLAIN},
            tokens=_count(row),
            seconds=_number(row, "seconds"),
            emitted=accepted,
            passes=None if accepted is None else 1.0,
        )
    ]


def _count(row: Row) -> float | None:
    """Returns how many tokens there are, which may stand there themselves."""
    tokens = row.get("tokens")
    return float(len(tokens)) if isinstance(tokens, list) else _number(row, "tokens")


HARNESS = Form(
    "samples of lm-evaluation-harness",
    ("doc_id",),
    lambda row: "resps" in row or "filtered_resps" in row,
    _harness,
)
FORMS = (
    Form("answers of Spec-Bench", ("question_id", "choices"), lambda row: True, _spec_bench),
    HARNESS,
    Form(
        "answers that a workdir keeps",
        ("id", "prompt", "text", "counts"),
        lambda row: isinstance(row["counts"], dict),
        _kept,
    ),
    Form("plain JSON lines", ("id",), lambda row: True, _plain),
)
