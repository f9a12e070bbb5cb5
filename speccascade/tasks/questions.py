"""Plain questions with accepted answers, from a file.

The file is JSON lines (or Parquet with the same columns), one question a line:

    {"prompt": "Who wrote Hamlet?", "answers": ["Shakespeare"], "split": "test"}

One answer may stand as a text alone. A question without `split` belongs to the split that a hash of
its prompt names.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from speccascade.errors import UserError
from speccascade.inputs import plain_text, text_files
from speccascade.tasks import columns, thoughts
from speccascade.tasks.example import Example
from speccascade.tasks.mentions import contains, terms

SPLITS = ("validation", "test")
_FIELDS = {"name", "path", "stop_strings"}


class Questions:
    """The task; see `speccascade.tasks.Task` for what its methods promise.

    Config fields: `path`, the file, relative to the working directory like every path that is
    given to a script; `stop_strings`, where an answer ends (none if absent, one may be a text
    alone). An example's id is the number of its line. There is nothing to train on.
    """

    name = "questions"
    aggregate = "mean"
    full_score = 1.0
    scored_with = ()

    def __init__(self, config: ml_collections.ConfigDict):
        if unknown := sorted(set(config) - _FIELDS):
            raise UserError(
                f"task has unknown fields {', '.join(unknown)}; known: path, stop_strings"
            )
        if not config.get("path"):
            raise UserError("task.path is missing; give a file of questions, JSON lines")
        given = config.get("stop_strings")
        self.stop_strings = plain_text.several(() if given is None else given, "task.stop_strings")
        if "" in self.stop_strings:
            raise UserError("task.stop_strings has an empty one; leave it out or give it text")
        self._examples = _read(config.path)

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        if split not in SPLITS:
            raise UserError(f"the questions have no split {split!r}; choose {' or '.join(SPLITS)}")
        return self._examples[split][:limit]

    def prompt(self, question: str) -> str:
        return question

    def score(self, text: str, example: Example) -> float:
        """1.0 if the text gives any accepted answer, see `mentions.contains`, else 0.0."""
        text = thoughts.answer(text)
        return float(any(contains(text, answer) for answer in example.reference))


def _read(path: str) -> dict[str, list[Example]]:
    """The examples by split, in the file's order."""
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    first: dict[str, int] = {}
    for number, row in text_files.read_rows(path):
        try:
            prompt, answers, split = _question(row)
            if prompt in first:
                raise UserError(f"the prompt is that of line {first[prompt]}; keep one of them")
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
        first[prompt] = number
        examples[split].append(Example(number, prompt, answers[0], answers))
    if not first:
        raise UserError(f"{path} has no questions")
    return examples


def _question(row: Mapping[str, Any]) -> tuple[str, tuple[str, ...], str]:
    """(prompt, accepted answers, split) of one row."""
    if unknown := sorted(row.keys() - {"prompt", "answers", "split"}):
        raise UserError(f"unknown fields {', '.join(unknown)}; known: prompt, answers, split")
    prompt, answers = columns.text(row, "prompt"), columns.texts(row, "answers")
    if not prompt.strip():
        raise UserError("prompt must be a text that is not empty")
    if not answers or not all(map(terms, answers)):
        raise UserError(
            "answers must be a list of at least one text, each with a word besides articles and "
            "punctuation"
        )
    split = row.get("split")
    split = SPLITS[_half(prompt)] if split is None else split
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; choose {' or '.join(SPLITS)}")
    return prompt, answers, split


def _half(prompt: str) -> int:
    """0 or 1, a function of the prompt alone."""
    return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] % 2
