"""School mathematics, GSM8K (Cobbe et al. 2021): the number after "####" must be right.

The data set has no validation split: it is a sixteenth of the training rows, which neither training
nor worked examples then use.
"""

import re
from collections.abc import Mapping
from typing import Any

from speccascade.tasks import columns
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example
from speccascade.tasks.final_number import final_number

_CALCULATOR = re.compile(r"<<[^>]*>>")


class Gsm8k(BenchmarkTask):
    """8 shots with their worked answers; 1.0 for the right number, else 0.0."""

    name = "gsm8k"
    hub = columns.Hub("openai/gsm8k", "main")
    parts = {
        "train": Part("train", range(15)),
        "validation": Part("train", range(15, 16)),
        "test": Part("test"),
    }
    shots = 8
    stops = ("\n\n", "Question:")

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        worked = _CALCULATOR.sub("", columns.text(row, "answer")).strip()
        number = final_number(worked)
        question = columns.text(row, "question").strip()
        return None if number is None else Problem(question, worked, number)

    def score(self, text: str, example: Example) -> float:
        return float(final_number(text) == example.reference)
