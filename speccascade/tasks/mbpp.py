"""Short Python programs from a description and three tests, MBPP (Austin et al. 2021): pass@1.

The programs that a model writes are run, in `speccascade.tasks.sandbox`.
"""

import re
from collections.abc import Mapping
from typing import Any

from speccascade.tasks import columns
from speccascade.tasks.benchmark_task import Part, Problem
from speccascade.tasks.code_task import CodeTask, passes
from speccascade.tasks.example import Example

_CALLED = re.compile(r"\b([^\W\d]\w*)\s*\(")


class Mbpp(CodeTask):
    """3 shots in the paper's wording."""

    name = "mbpp"
    hub = columns.Hub("google-research-datasets/mbpp", "full")
    parts = {
        "train": Part("train"),
        "validation": Part("validation"),
        "test": Part("test"),
    }
    shots = 3
    template = "You are an expert Python programmer, and here is your task: {}\n[BEGIN]\n"
    request = "You are an expert Python programmer, and here is your task: {}\n"
    separator = "\n[DONE]\n\n"
    stops = ("[DONE]",)

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        if not (tests := "\n".join(columns.texts(row, "test_list"))):
            return None  # any program would pass
        asked = columns.text(row, "text").strip()
        question = f"{asked} Your code should pass these tests:\n\n{tests}"
        code = columns.text(row, "code").replace("\r\n", "\n").strip()
        return Problem(question, code, f"{columns.text(row, 'test_setup_code')}\n{tests}")

    def score(self, text: str, example: Example) -> float:
        return passes("", text, _CALLED.findall(example.reference), example.reference)

    def program(self, problem: Problem) -> str:
        return problem.answer
