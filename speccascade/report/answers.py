"""Where the answers of two settings differ, side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import ml_collections
import numpy as np

from speccascade import pairs, tasks
from speccascade.errors import UserError
from speccascade.evaluate.quality import answered, of_examples
from speccascade.inference.reading import find, from_fields
from speccascade.tasks.example import Example
from speccascade.workdir import answers

WIDTH = 60  # of a column
_SHOWN = 8  # lines of a prompt


def differing(
    workdir: str, config: Mapping[str, Any], left: str, right: str, split: str, limit: int
) -> str:
    """Returns the examples to which two settings gave other texts, the first `limit` of them.

    Args:
      workdir: of the evaluation.
      config: its config.
      left: a setting as tables and messages write it, "token_v3 alpha=0.3 N=4 T=0", or as many of
        these words as tell it from the others.
      right: another.
      split: whose examples.
      limit: examples shown.

    Raises:
      UserError: a setting is not one of those that were measured, or its answers were not kept.
    """
    rows = {from_fields(row): row for row in answered(workdir, split)}
    if not rows:
        raise UserError(f"{workdir} keeps no answers of split {split}; run scripts/evaluate.py")
    chosen = [find(text, list(rows)) for text in (left, right)]
    own = [rows[setting] for setting in chosen]
    count = min(row["num_examples"] for row in own)
    examples = _examples(config, split, count)
    found = []
    for row in own:
        found.append(of_examples(answers.read(workdir, row["answers"]), examples))
    others = [
        (i, a, b)
        for i, (a, b) in enumerate(zip(*found, strict=True))
        if a is not None and b is not None and a["text"] != b["text"]
    ]
    lines = [
        f"left   {chosen[0]}",
        f"right  {chosen[1]}",
        f"{len(others)} of {count} answers of split {split} differ"
        + (f"; the first {limit}:" if limit < len(others) else ""),
    ]
    for i, a, b in others[:limit]:
        scores = (_score(row["scores"][i]) for row in own)
        lines += ["", f"== example {examples[i].id}, scores {' and '.join(scores)}"]
        lines += [f"   {line}" for line in _wrapped(examples[i].prompt, 2 * WIDTH)[-_SHOWN:]]
        lines += ["", *_beside(_told(a), _told(b))]
    return "\n".join(lines)


def kept(
    workdir: str, config: Mapping[str, Any], split: str, limit: int
) -> tuple[list[dict[str, str]], dict[str, list[dict[str, Any] | None]]]:
    """Returns the first `limit` examples of a split, and by setting what was answered to each.

    An answer is its text, how it was made, and its score; None where it was not kept.
    """
    rows = {from_fields(row): row for row in answered(workdir, split)}
    if not rows:
        return [], {}
    examples = _examples(config, split, min(limit, max(r["num_examples"] for r in rows.values())))
    found = {}
    for setting, row in rows.items():
        own = of_examples(answers.read(workdir, row["answers"]), examples)
        scores = row["scores"]  # the file may have answers to more examples than are scored
        found[str(setting)] = [
            {"text": answer["text"], "made": _made(answer), "score": _score(scores[i])}
            if answer and i < len(scores)
            else None
            for i, answer in enumerate(own)
        ]
    return [{"id": str(e.id), "prompt": e.prompt} for e in examples], found


def _examples(config: Mapping[str, Any], split: str, count: int) -> Sequence[Example]:
    task = tasks.make(ml_collections.ConfigDict(config["task"]), pairs.chats(config["pair"]))
    return task.examples(split, count)


def _score(value: float | Sequence[float]) -> str:
    """Returns an example's score; statistics of a corpus score say nothing alone."""
    return f"{value:g}" if np.ndim(value) == 0 else "–"


def _told(answer: answers.Answer) -> list[str]:
    return [_made(answer), "", *_wrapped(answer["text"], WIDTH)]


def _made(answer: answers.Answer) -> str:
    calls, tokens = answer["counts"]["expert_calls"], f"{len(answer['tokens'])} tokens"
    return f"{tokens}, {calls:.0f} expert calls" if calls else tokens


def _wrapped(text: str, width: int) -> list[str]:
    """Returns the lines of a text, long ones cut to a width, white space kept."""
    cut = (textwrap.wrap(line, width, drop_whitespace=False) or [""] for line in text.split("\n"))
    return [line for lines in cut for line in lines]


def _beside(left: Sequence[str], right: Sequence[str]) -> list[str]:
    both = zip_longest(left, right, fillvalue="")
    return [f"{a:{WIDTH}} | {b}".rstrip() for a, b in both]
