"""Tasks by name: where prompts, worked answers and scores come from."""

import importlib
from typing import Protocol

import ml_collections

from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.inputs.field_types import show
from speccascade.tasks.example import Example

SPLITS = ("train", "validation", "test")


class Task(Protocol):
    """What training and evaluation need of a task.

    Attributes:
      name: what results are filed under.
      stop_strings: where an answer ends, besides at EOS.
      aggregate: the function of `tasks.aggregate` that makes one figure of all examples' scores.
      full_score: that figure where every answer is perfect; the worst is 0.
      scored_with: distributions whose version can change a score.
    """

    name: str
    stop_strings: tuple[str, ...]
    aggregate: str
    full_score: float
    scored_with: tuple[str, ...]

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The examples of `split` in a fixed order, the first `limit` of them if given."""

    def prompt(self, question: str) -> str:
        """What a model reads when it is asked `question`, just as in `examples`."""

    def score(self, text: str, example: Example) -> float | tuple[float, ...]:
        """How good the generated `text` (without the prompt) is as an answer to `example`.

        One number where `aggregate` is the mean, else the statistics that it sums over examples.
        """


# A task is one file and one row here: its module and class.
_TASKS = {
    "gsm_symbolic": "gsm_symbolic.GsmSymbolic",
    "questions": "questions.Questions",
    "wmt14": "wmt14.Wmt14",
    "xsum": "xsum.XSum",
    "cnn_dailymail": "cnn_dailymail.CnnDailyMail",
    "gsm8k": "gsm8k.Gsm8k",
    "mbpp": "mbpp.Mbpp",
    "human_eval": "human_eval.HumanEval",
    "debian_en_de": "debian_task.DebianEnDe",
    "debian_summaries": "debian_task.DebianSummaries",
    "squad": "squad.Squad",
    "web_questions": "web_questions.WebQuestions",
    "natural_questions": "natural_questions.NaturalQuestions",
    "trivia_qa": "trivia_qa.TriviaQa",
}


def make(config: ml_collections.ConfigDict, chat: bool = False) -> Task:
    """The task that `config.name` names, built from the rest of `config`.

    With `chat`, whether its prompts go into a chat template, a task that has a format for that
    ("instruct") takes it where `config.format` does not say which.
    """
    named = values.section("task", config, ["name"])["name"]
    if not isinstance(named, str) or named not in _TASKS:
        raise UserError(f"unknown task {show(named)}; known: {', '.join(sorted(_TASKS))}")
    module, name = _TASKS[named].split(".")
    kind = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    if chat and "instruct" in getattr(kind, "formats", ()) and "format" not in config:
        config = ml_collections.ConfigDict({**config.to_dict(), "format": "instruct"})
    return kind(config)


__all__ = ["SPLITS", "Example", "Task", "make"]
