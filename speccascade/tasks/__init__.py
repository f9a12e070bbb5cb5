"""Tasks by name: where prompts, worked answers and scores come from."""

from collections.abc import Callable
from typing import Protocol

import ml_collections

from speccascade.errors import UserError
from speccascade.tasks import gsm_symbolic, questions
from speccascade.tasks.example import Example

SPLITS = ("train", "validation", "test")


class Task(Protocol):
    """What training and evaluation need of a task."""

    name: str
    stop_strings: tuple[str, ...]

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The examples of `split` in a fixed order, the first `limit` of them if given."""

    def prompt(self, question: str) -> str:
        """What a model reads when it is asked `question`, just as in `examples`."""

    def score(self, text: str, example: Example) -> float:
        """Quality of the generated `text` (without the prompt) as an answer to `example`."""


_TASKS: dict[str, Callable[[ml_collections.ConfigDict], Task]] = {
    "gsm_symbolic": gsm_symbolic.GsmSymbolic,
    "questions": questions.Questions,
}


def make(config: ml_collections.ConfigDict) -> Task:
    """The task that `config.name` names, built from the rest of `config`."""
    if config.name not in _TASKS:
        raise UserError(f"unknown task {config.name!r}; known: {', '.join(sorted(_TASKS))}")
    return _TASKS[config.name](config)


__all__ = ["SPLITS", "Example", "Task", "make"]
