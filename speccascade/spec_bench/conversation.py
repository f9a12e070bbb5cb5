"""A question's turns at batch 1, each timed: the next one's prompt holds the answers before it."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from speccascade.errors import UserError
from speccascade.inference.engine import Engine
from speccascade.inference.padding import padded
from speccascade.inference.setting import Setting
from speccascade.pairs import Pair
from speccascade.sharding import hosts
from speccascade.spec_bench.questions import Question


class Reply(NamedTuple):
    """An answer to one turn.

    Attributes:
      text: without special tokens, and without white space around it.
      new_tokens: how many were generated, an end-of-sequence included.
      seconds: from the prompt's ids to the last token.
      accept_lengths: the tokens that each step added: what a block kept of its draft and the
        verifier's own; one where a step is a token.
    """

    text: str
    new_tokens: int
    seconds: float
    accept_lengths: list[int]


def check(pair: Pair, questions: Sequence[Question], max_new_tokens: int) -> None:
    """Raises UserError where a pair cannot hold a conversation.

    Every turn must leave room for a token even if all answers before it are as long as they may be.
    """
    if pair.tokenizer.settings.template is None:
        raise UserError(
            f"pair {pair.name} has no chat template, and the questions are conversations; give a "
            "pair that was tuned for them"
        )
    for question in questions:
        for number in range(len(question.turns)):
            ids = _prompt(pair, question, [""] * number)
            longest = len(ids) + number * max_new_tokens
            if refusal := pair.lengths.refusal(longest):
                least = "" if number == 0 else ", answers before it included"
                change = "leave the question out" if number == 0 else "lower max_new_tokens"
                raise UserError(
                    f"question {question.id!r}: turn {number + 1} has {refusal}{least}; {change}"
                )


def _prompt(pair: Pair, question: Question, answers: Sequence[str]) -> list[int]:
    """Returns the ids of a conversation up to the next turn of the user's, that included."""
    messages: list[dict[str, Any]] = []
    for turn, answer in zip(question.turns, answers, strict=False):
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": question.turns[len(answers)]})
    return pair.tokenizer.encode_chat(messages)


def room(length: int) -> int:
    """Returns to how many tokens a prompt of `length` is padded.

    Each setting compiles a program for each: from 64 to 2,048 tokens there are ten. At most a third
    of a long prompt is padding.
    """
    return padded(length, step=64, steps=4)


class Speaker:
    """Answers conversations with a pair; what a prompt's room compiles is compiled untimed."""

    def __init__(self, pair: Pair, max_new_tokens: int):
        """Takes the pair, and the most tokens of an answer."""
        self._engine = Engine.build(pair, [[0]], max_new_tokens)
        self._ready: set[tuple[Setting, int]] = set()

    def check(self, setting: Setting) -> None:
        """Raises UserError where a setting asks for what the pair cannot do."""
        self._engine.check(setting)

    def converse(self, setting: Setting, question: Question, first: int) -> Iterator[Reply]:
        """Yields the answer to each turn.

        Args:
          setting: how they are decoded.
          question: the user.
          first: keys the random draws of its first turn; the others follow.

        Raises:
          UserError: the models' logits are not finite.
        """
        answers: list[str] = []
        for number in range(len(question.turns)):
            name = f"question {question.id!r} turn {number + 1}"
            ids = _prompt(self._engine.pair, question, answers)
            reply = self._reply(setting, ids, first + number, name)
            yield reply
            answers.append(reply.text)

    def _reply(self, setting: Setting, ids: Sequence[int], example_id: int, name: str) -> Reply:
        request = self._engine.request(ids, example_id, name)
        width = room(len(ids))
        engine = dataclasses.replace(self._engine, prompt_slots=width)
        if (setting, width) not in self._ready:
            short = request._replace(max_new_tokens=1)
            jax.block_until_ready(engine.prepare([setting], [short], [setting])())
            self._ready.add((setting, width))
        decode = engine.prepare([setting], [request], [setting])
        began = time.perf_counter()
        output = jax.block_until_ready(decode())
        seconds = time.perf_counter() - began
        output = jax.tree.map(lambda x: np.asarray(x[0]), hosts.gather(output))
        if output.invalid:
            raise UserError(
                f"{name}: the models' logits are not finite; look at the checkpoints and the dtype"
            )
        tokens = output.tokens[: output.num_tokens].tolist()
        lengths = np.trim_zeros(output.blocks, "b").tolist() or [1] * len(tokens)
        return Reply(engine.text(tokens, ids).strip(), len(tokens), seconds, lengths)
