"""How long prompts and answers may be."""

from typing import NamedTuple, Self

from speccascade import models
from speccascade.models.interface import Model


class Lengths(NamedTuple):
    """Limits in tokens, None where there is none.

    A decoder-only model reads prompt and answer as one text. An encoder-decoder has a side for
    each, and neither takes room of the other.

    Attributes:
      prompt: of a prompt.
      answer: of an answer.
      together: of both.
    """

    prompt: int | None = None
    answer: int | None = None
    together: int | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        context_length: int | None,
        prompt: int | None = None,
        answer: int | None = None,
    ) -> Self:
        """Returns a model's limits; the arguments are the fields of `Pair`."""
        if models.describe(model)["family"] == "encoder_decoder":
            return cls(*(context_length if own is None else own for own in (prompt, answer)))
        return cls(prompt, answer, context_length)

    @property
    def longest_answer(self) -> int | None:
        """The most tokens of any answer."""
        return _least(self.answer, self.together)

    def for_prompt(self, answer: int) -> int | None:
        """Returns the most tokens of a prompt that leaves room for an answer of so many."""
        answer = _least(answer, self.longest_answer)
        return _least(self.prompt, None if self.together is None else self.together - answer)

    def for_answer(self, prompt: int) -> int | None:
        """Returns the most tokens of an answer to a prompt of so many."""
        return _least(self.answer, None if self.together is None else self.together - prompt)

    def refusal(self, prompt: int) -> str | None:
        """Returns why a prompt of so many tokens cannot be answered, None where it can."""
        if self.prompt is not None and prompt > self.prompt:
            return f"{prompt} tokens and the pair takes prompts of at most {self.prompt}"
        if self.together is not None and prompt >= self.together:
            return (
                f"{prompt} tokens and the pair a context of {self.together}, prompt and answer "
                "together"
            )
        return None


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
