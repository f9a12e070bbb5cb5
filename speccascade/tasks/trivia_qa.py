"""Quiz questions without a text to read, TriviaQA (Joshi et al. 2017): exact match.

The test answers are not public: validation and test are halves of the published validation split.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from speccascade.tasks import answers, columns
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class TriviaQa(BenchmarkTask):
    """5 shots; 1.0 if the answer is an alias under TriviaQA's own normalisation, else 0.0."""

    name = "trivia_qa"
    hub = columns.Hub("mandarjoshi/trivia_qa", "rc.nocontext")
    parts = {
        "train": Part("train"),
        "validation": Part("validation", range(0, 8)),
        "test": Part("validation", range(8, 16)),
    }
    shots = 5

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        value = columns.text(row, "answer", "value").strip()
        aliases = (columns.texts(row, "answer", name) for name in ("aliases", "normalized_aliases"))
        accepted = tuple(dict.fromkeys((value, *itertools.chain(*aliases))))
        return Problem(columns.text(row, "question").strip(), value, accepted) if value else None

    def score(self, text: str, example: Example) -> float:
        return answers.exact_match(text, example.reference, answers.trivia_qa)
