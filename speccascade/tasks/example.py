"""The unit that every task hands out."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One problem.

    Attributes:
        id: Unique over all splits of the task and stable from run to run; keys random draws.
        prompt: What a model reads; a `prompt.Prompt` where a part of it may be cut.
        answer: What a model should write, without EOS: the whole worked answer.
        reference: What `Task.score` compares with.
    """

    id: int
    prompt: str
    answer: str
    reference: Any
