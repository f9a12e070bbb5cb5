"""Questions without a text to read, NQ-open (Kwiatkowski et al. 2019, Lee et al. 2019).

The test answers are not public: validation and test are halves of the published validation split.
"""

from collections.abc import Mapping
from typing import Any

from speccascade.tasks import answers, columns
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class NaturalQuestions(BenchmarkTask):
    """1 shot; 1.0 if the answer is an accepted one under SQuAD's normalisation, else 0.0."""

    name = "natural_questions"
    hub = columns.Hub("google-research-datasets/nq_open")
    parts = {
        "train": Part("train"),
        "validation": Part("validation", range(0, 8)),
        "test": Part("validation", range(8, 16)),
    }
    shots = 1

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        question, accepted = columns.text(row, "question").strip(), columns.texts(row, "answer")
        return Problem(question, accepted[0], accepted) if accepted else None

    def score(self, text: str, example: Example) -> float:
        return answers.exact_match(text, example.reference)
