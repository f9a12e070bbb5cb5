"""Short Python programs from a description and three tests, MBPP (Austin et al. 2021): pass@1.

The programs that a model writes are run, in `speccascade.tasks.sandbox`.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from speccascade.tasks import columns, sandbox
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example


class Mbpp(BenchmarkTask):
    """3 shots in the paper's wording; 1.0 if the tests pass, else 0.0."""

    name = "mbpp"
    hub = columns.Hub("google-research-datasets/mbpp", "full")
    parts = {
        "train": Part("train"),
        "validation": Part("validation"),
        "test": Part("test"),
    }
    shots = 3
    template = "You are an expert Python programmer, and here is your task: {}\n[BEGIN]\n"
    separator = "\n[DONE]\n\n"
    stops = ("[DONE]",)

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        sandbox.require()

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        if not (tests := "\n".join(columns.texts(row, "test_list"))):
            return None  # any program would pass
        asked = columns.text(row, "text").strip()
        question = f"{asked} Your code should pass these tests:\n\n{tests}"
        code = columns.text(row, "code").replace("\r\n", "\n").strip()
        return Problem(question, code, f"{columns.text(row, 'test_setup_code')}\n{tests}")

    def score(self, text: str, example: Example) -> float:
        return float(sandbox.passes(f"{text}\n{example.reference}"))
