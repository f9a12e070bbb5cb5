"""Prompts of which a part may be cut, and how they are made to fit.

A limit is one of tokens, and each model has its own; which part of a prompt can be spared, only who
wrote it knows. So a task marks that part, and whoever encodes cuts it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, cast


class Prompt(str):
    """A text of which a part may be cut, from its end, where it is too long for a model.

    Attributes:
      start: where that part begins.
      stop: where it ends.
    """

    start: int
    stop: int

    def __new__(cls, text: str, start: int, stop: int) -> Self:
        """Marks `text[start:stop]`."""
        if not 0 <= start <= stop <= len(text):
            raise ValueError(f"[{start}, {stop}) is not a part of a text of {len(text)} characters")
        made = super().__new__(cls, text)
        made.start, made.stop = start, stop
        return made

    def __getnewargs__(self) -> tuple[str, int, int]:  # type: ignore[override]  # `str` has one argument
        return str(self), self.start, self.stop

    def cut(self, length: int) -> str:
        """Returns the text with `length` characters of its part, white space at their end aside."""
        kept = self[self.start : self.start + length].rstrip()
        return self[: self.start] + kept + self[self.stop :]


class Fitted(NamedTuple):
    """A prompt as a model reads it.

    Attributes:
      ids: its tokens.
      cut: how many of them it has less than the whole prompt.
    """

    ids: list[int]
    cut: int = 0


def fit(
    encode: Callable[[Sequence[str]], list[list[int]]],
    prompts: Sequence[str],
    most: Sequence[int | None],
) -> list[Fitted]:
    """Encodes prompts, and cuts those that are too long and may be cut, as little as will do.

    The text is cut, not its ids: what is left is a prompt that somebody could have written, chat
    template and all that a checkpoint puts around a prompt included.

    Args:
      encode: from texts to their ids.
      prompts: a `Prompt` may be cut, another text stays whole.
      most: the most tokens of each; None for no limit.

    Returns:
      One for each prompt. One that is too long even without all that may be cut stays whole.
    """
    found = [Fitted(ids) for ids in encode(prompts)]
    # By prompt: the most characters that are known to fit, and the fewest that are known not to.
    between = {
        i: (-1, prompt.stop - prompt.start)
        for i, (prompt, limit) in enumerate(zip(prompts, most, strict=True))
        if isinstance(prompt, Prompt) and limit is not None and len(found[i].ids) > limit
    }
    whole = {i: len(found[i].ids) for i in between}
    while between:
        tried = {i: 0 if low < 0 else (low + high) // 2 for i, (low, high) in between.items()}
        cut = encode([cast(Prompt, prompts[i]).cut(length) for i, length in tried.items()])
        for (i, length), ids in zip(tried.items(), cut, strict=True):
            low, high = between[i]
            if len(ids) <= most[i]:
                found[i], low = Fitted(ids, whole[i] - len(ids)), length
            else:
                high = length
            between[i] = low, high
        between = {i: (low, high) for i, (low, high) in between.items() if high - low > 1}
    return found
