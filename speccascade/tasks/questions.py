"""Plain questions with accepted answers, from a file.

The file is JSON lines (or Parquet with the same columns), one question a line:

    {"prompt": "Who wrote Hamlet?", "answers": ["Shakespeare"], "split": "test"}

One answer may stand as a text alone. A question without `split` belongs to the split that a hash of
its prompt names. How texts are scored by the answers is a metric of `tasks.metrics`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from speccascade.errors import UserError
from speccascade.inputs import optional_fields, plain_text, text_files, values
from speccascade.tasks import columns
from speccascade.tasks.example import Example
from speccascade.tasks.mentions import contains as contains  # its old place
from speccascade.tasks.metrics import METRICS, Metric

SPLITS = ("validation", "test")
_FIELDS = {"name", "path", "stop_strings", "metric"}


class Questions:
    """The task; see `speccascade.tasks.Task` for what its methods promise.

    Config fields: `path`, the file, relative to the working directory like every path that is
    given to a script; `metric`, a key of `METRICS`, "contains" if absent; `stop_strings`, where an
    answer ends (none if absent, one may be a text alone). An example's id is the number of its
    line. There is nothing to train on.
    """

    name = "questions"

    def __init__(self, config: ml_collections.ConfigDict):
        optional_fields.check("task", config, _FIELDS)
        if not config.get("path"):
            raise UserError("task.path is missing; give a file of questions, JSON lines")
        given = config.get("stop_strings")
        self.stop_strings = plain_text.several(() if given is None else given, "task.stop_strings")
        if "" in self.stop_strings:
            raise UserError("task.stop_strings has an empty one; leave it out or give it text")
        name = values.choice("task.metric", config.get("metric", "contains"), METRICS)
        self._metric = METRICS[name]
        self.aggregate = self._metric.aggregate
        self.full_score = self._metric.full_score
        self.scored_with = self._metric.scored_with
        self._examples = _read(config.path, self._metric)

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        if split not in SPLITS:
            raise UserError(f"the questions have no split {split!r}; choose {' or '.join(SPLITS)}")
        return self._examples[split][:limit]

    def prompt(self, question: str) -> str:
        return question

    def score(self, text: str, example: Example) -> float | tuple[float, ...]:
        return self._metric.score(text, example.reference)


def _read(path: str, metric: Metric) -> dict[str, list[Example]]:
    """The examples by split, in the file's order."""
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    first: dict[str, int] = {}
    for number, row in text_files.read_rows(path):
        try:
            prompt, answers, split = _question(row, metric)
            if prompt in first:
                raise UserError(f"the prompt is that of line {first[prompt]}; keep one of them")
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
        first[prompt] = number
        examples[split].append(Example(number, prompt, answers[0], answers))
    if not first:
        raise UserError(f"{path} has no questions")
    return examples


def _question(row: Mapping[str, Any], metric: Metric) -> tuple[str, tuple[str, ...], str]:
    """(prompt, accepted answers, split) of one row."""
    if unknown := sorted(row.keys() - {"prompt", "answers", "split"}):
        raise UserError(f"unknown fields {', '.join(unknown)}; known: prompt, answers, split")
    prompt, answers = columns.text(row, "prompt"), columns.texts(row, "answers")
    if not prompt.strip():
        raise UserError("prompt must be a text that is not empty")
    metric.check(answers)
    split = row.get("split")
    split = SPLITS[_half(prompt)] if split is None else split
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; choose {' or '.join(SPLITS)}")
    return prompt, answers, split


def _half(prompt: str) -> int:
    """0 or 1, a function of the prompt alone."""
    return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] % 2
