"""What the tasks have in common whose answers are programs: a chat model's form, tests that run."""

import re
from collections.abc import Sequence

import ml_collections

from speccascade.tasks import fences, sandbox
from speccascade.tasks.benchmark_task import BenchmarkTask, Problem

_FUTURE = re.compile(r"^from __future__ import .*\n", re.MULTILINE)


class CodeTask(BenchmarkTask):
    """A benchmark of programs; 1.0 if the tests pass, else 0.0.

    With `format="instruct"`, which chat pairs get if the config does not say, the question is a
    request in words, the answer is code in a fence, and the task is called `NAME_instruct`, as in
    lm-evaluation-harness. Which code of an answer is tested `fences.code` says, for either format.

    Attributes:
      request: the wording of the request, "{}" in place of the question.
    """

    formats = ("few_shot", "instruct")
    request: str

    def __init__(self, config: ml_collections.ConfigDict):
        super().__init__(config)
        if self._format == "instruct":
            self.name += "_instruct"
            self.template, self.separator = self.request, "\n\n"
        sandbox.require()

    def program(self, problem: Problem) -> str:
        """The whole program that answers a problem."""
        raise NotImplementedError

    def _shown(self, problem: Problem) -> str:
        if self._format != "instruct":
            return super()._shown(problem)
        return f"```python\n{self.program(problem).strip()}\n```"


def passes(given: str, text: str, names: Sequence[str], tests: str) -> float:
    """Runs the code of an answer, and then tests.

    Args:
      given: the code that the answer goes on from; one that defines a name itself stands behind it,
        so that imports and helpers are there.
      text: the answer.
      names: what the tests call.
      tests: code that fails if the answer is wrong.

    Returns:
      1.0 if all comes to its end without an error, else 0.0.
    """
    code = fences.code(text, names)
    if any(fences.defines(code, name) for name in names):
        given += "\n\n"
    # Such an import must come first of all.
    first, code = "".join(_FUTURE.findall(code)), _FUTURE.sub("", code)
    return float(sandbox.passes(f"{first}{given}{code}\n\n{tests}"))
