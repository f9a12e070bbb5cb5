"""Reading with questions that the text may not answer, SQuAD 2.0 (Rajpurkar et al. 2018): F1.

The test answers are not public: validation and test are halves of the published validation split.
"""

from collections.abc import Mapping
from typing import Any

from speccascade.tasks import answers, columns
from speccascade.tasks.benchmark_task import BenchmarkTask, Part, Problem
from speccascade.tasks.example import Example

NO_ANSWER = "unanswerable"


class Squad(BenchmarkTask):
    """4 shots; the official F1, 0 to 1. A model declines by writing "unanswerable" or nothing."""

    name = "squad"
    hub = columns.Hub("rajpurkar/squad_v2")
    parts = {
        "train": Part("train"),
        "validation": Part("validation", range(0, 8)),
        "test": Part("validation", range(8, 16)),
    }
    shots = 4
    instruction = (
        "Answer each question with words from the text, or with "
        f'"{NO_ANSWER}" if the text has no answer.\n\n'
    )
    template = "{}\nAnswer:"
    _TEXT, _QUESTION = "Text: ", "\nQuestion: "

    def problem(self, row: Mapping[str, Any]) -> Problem | None:
        context, asked = (columns.text(row, name).strip() for name in ("context", "question"))
        question = f"{self._TEXT}{context}{self._QUESTION}{asked}"
        accepted = [text for text in columns.texts(row, "answers", "text") if answers.squad(text)]
        return Problem(question, accepted[0] if accepted else NO_ANSWER, tuple(accepted or [""]))

    def may_cut(self, question: str) -> tuple[int, int] | None:
        stop = question.rfind(self._QUESTION)
        given = question.startswith(self._TEXT) and stop >= 0
        return (len(self._TEXT), stop) if given else None

    def score(self, text: str, example: Example) -> float:
        declined = answers.squad(text) == NO_ANSWER
        return answers.f1("" if declined else text, example.reference)
