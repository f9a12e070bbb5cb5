"""Questions that people asked a search engine, WebQuestions (Berant et al. 2013): exact match.

The data set has no validation split: it is an eighth of the training rows, which worked examples
then do not use.
"""

from collections.abc import Mapping
from typing import Any

from speccascade.tasks import answers, columns
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class WebQuestions(BenchmarkTask):
    """1 shot; 1.0 if the answer is an accepted one under SQuAD's normalisation, else 0.0."""

    name = "web_questions"
    hub = columns.Hub("stanfordnlp/web_questions")
    parts = {
        "train": Part("train", range(0, 14)),
        "validation": Part("train", range(14, 16)),
        "test": Part("test"),
    }
    shots = 1

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        question, accepted = columns.text(row, "question").strip(), columns.texts(row, "answers")
        return Problem(question, accepted[0], accepted) if accepted else None

    def score(self, text: str, example: Example) -> float:
        return answers.exact_match(text, example.reference)
