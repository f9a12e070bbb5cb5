"""From settings and prompts to calls of the decode engine."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from speccascade import decode, rules
from speccascade.decode.stopping import cut
from speccascade.errors import UserError
from speccascade.inference.padding import padded
from speccascade.inference.setting import TRUNCATIONS, Pairs, Room, Setting, digest
from speccascade.inputs import plain_text, values
from speccascade.pairs import Pair
from speccascade.sampling import Truncation
from speccascade.sharding import hosts

# Where nothing else limits an answer: the caches of a longer one would be allocated at once.
MOST_NEW_TOKENS = 2**17


class Request(NamedTuple):
    """One prompt.

    Attributes:
      prompt: its token ids.
      example_id: keys its random draws.
      max_new_tokens: the most tokens to generate; 0 for a row that only fills a batch.
      cut: how many tokens the prompt has less than it had, see `prompt.fit`.
    """

    prompt: Sequence[int]
    example_id: int
    max_new_tokens: int
    cut: int = 0


def program(setting: Setting) -> tuple:
    """Returns what settings must share to be decoded in one batch by one compiled program."""
    limits = tuple(
        tuple(kind for kind, _ in pairs)
        for pairs in (setting.drafter_truncation, setting.expert_truncation)
    )
    return setting.method.name, *setting.method.program(setting), limits


def rule_kind(setting: Setting) -> tuple:
    """Returns what settings must share for their knobs to be rows of one rule."""
    if setting.rule is None:
        return ()
    known = rules.definition(setting.rule).knobs
    return setting.rule, tuple((k, v) for k, v in setting.knobs if known[k].static)


def prompt_slots(longest: int) -> int:
    """Returns to how many tokens prompts are padded of which the longest has `longest`."""
    return padded(longest, step=16, steps=8)


def answer_digest(tokens: Sequence[int]) -> str:
    """Returns 8 hex digits of an answer's tokens, by which a row remembers it."""
    return digest([int(token) for token in tokens])[:8]


@dataclasses.dataclass(frozen=True)
class Engine:
    """A pair with the shapes in which it decodes.

    Attributes:
      pair: the models.
      stop_table: int32 [S, V], where rows end.
      stop_strings: what the text is cut at.
      prompt_slots: room for a prompt.
      max_new_tokens: room for an answer.
      answers_begin: whether every answer is a text of its own; where not, only those of prompts
        without text are.
    """

    pair: Pair
    stop_table: np.ndarray
    stop_strings: tuple[str, ...]
    prompt_slots: int
    max_new_tokens: int
    answers_begin: bool = False

    @classmethod
    def build(
        cls,
        pair: Pair,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_strings: Sequence[str] = (),
        stop_ids: Sequence[int] = (),
    ) -> "Engine":
        """Returns an engine with room for `prompts`.

        Args:
          pair: the models.
          prompts: token ids.
          max_new_tokens: the most tokens of an answer.
          stop_strings: an answer ends before the first of these.
          stop_ids: tokens that end an answer beside the tokenizer's own.

        Raises:
          UserError: a stop string is none, or `max_new_tokens` is no whole number from 1 on.
        """
        stop_strings = plain_text.several(stop_strings, "stop_strings")
        max_new_tokens = values.whole("max_new_tokens", max_new_tokens, 1)
        tokenizer = pair.tokenizer
        table = decode.stop_table(
            tokenizer.vocab_size,
            (*tokenizer.eos_ids, *stop_ids),
            stop_strings,
            tokenizer.token_bytes,
            partial(tokenizer.token_bytes, begins=True),
        )
        slots = prompt_slots(max(len(prompt) for prompt in prompts))
        longest = pair.lengths.longest_answer
        if longest is None and max_new_tokens > MOST_NEW_TOKENS:
            raise UserError(
                f"max_new_tokens={max_new_tokens} and pair {pair.name} has no limit of its own; "
                f"give at most {MOST_NEW_TOKENS}, or the pair an answer_length"
            )
        room = int(max_new_tokens if longest is None else min(max_new_tokens, longest))
        return cls(pair, table, stop_strings, slots, room, pair.answers_begin)

    def request(self, prompt: Sequence[int], example_id: int, name: str, cut: int = 0) -> Request:
        """Returns the request for a prompt, whose answer may take all room that there is.

        Args:
          prompt: its token ids.
          example_id: keys its random draws.
          name: what a message calls it.
          cut: how many tokens it has less than it had.

        Raises:
          UserError: the prompt is empty, too long or leaves no room.
        """
        if not prompt:
            raise UserError(f"{name} is empty; give it at least one token")
        if refusal := self.pair.lengths.refusal(len(prompt)):
            raise UserError(f"{name} has {refusal}; shorten it")
        room = self.pair.lengths.for_answer(len(prompt))
        room = self.max_new_tokens if room is None else min(self.max_new_tokens, room)
        return Request(prompt, example_id, room, cut)

    def check(self, setting: Setting) -> None:
        """Raises UserError where a setting asks for what the pair cannot do."""
        if trouble := setting.method.trouble(setting, self.pair):
            raise UserError(f"setting {setting} {trouble}")
        most = self.pair.lengths.longest_answer or MOST_NEW_TOKENS
        if max(setting.draft_length or 0, setting.drafting.longest()) > most:
            raise UserError(
                f"setting {setting} drafts more tokens than the pair's longest answer has, {most}"
            )

    def prepare(
        self,
        settings: Sequence[Setting],
        requests: Sequence[Request],
        kinds: Sequence[Setting],
        run: Callable = decode.generate,
    ) -> Callable[[], Any]:
        """Returns a function that decodes a batch, each row under its own setting.

        Args:
          settings: per row; of one `program`.
          requests: per row.
          kinds: a setting for each `rule_kind` that the program computes, those of `settings`
            included. As long as they stay the same, nothing is compiled anew.
          run: what runs speculative settings: `decode.generate`, or `decode.trace`.
        """
        self.check(settings[0])
        made, rows = hosts.ready(self.rows(settings, requests, kinds))
        return settings[0].method.prepare(self.room(run), settings, made, rows)

    def room(self, run: Callable = decode.generate) -> Room:
        """Returns where methods decode; `run` as in `prepare`."""
        return Room(self.pair, self.max_new_tokens, run)

    def rows(
        self, settings: Sequence[Setting], requests: Sequence[Request], kinds: Sequence[Setting]
    ) -> tuple[tuple[rules.Rule, ...], decode.Rows]:
        """Returns rules, knobs [B], and rows; `spec` where the method has no rule.

        The arguments are those of `prepare`.
        """
        made, index = rules_by_row(settings, kinds)
        rows = decode.make_rows(
            [request.prompt for request in requests],
            stop_table=self.stop_table,
            max_new_tokens=[request.max_new_tokens for request in requests],
            prompt_slots=self.prompt_slots,
            temperature=[s.temperature for s in settings],
            seed=[s.seed for s in settings],
            example_ids=[request.example_id for request in requests],
            rule_index=index,
            stop_state=[self._stop_state(request.prompt) for request in requests],
            drafter_truncation=limits_of([s.drafter_truncation for s in settings]),
            expert_truncation=limits_of([s.expert_truncation for s in settings]),
            drafting=settings[0].drafting.rows(settings),
        )
        return made, rows

    def begins(self, prompt: Sequence[int]) -> bool:
        """Returns whether the answer to a prompt begins a text, rather than going on with one."""
        return self.answers_begin or not self.pair.tokenizer.data(prompt)

    def _stop_state(self, prompt: Sequence[int]) -> int:
        return len(self.stop_table) - 1 if self.begins(prompt) else 0

    def text(self, tokens: Sequence[int], prompt: Sequence[int] | None = None) -> str:
        """Returns the text of an answer, up to the first stop string.

        Args:
          tokens: what was generated.
          prompt: what it answers; None where the prompt is known to have text.
        """
        begins = self.answers_begin if prompt is None else self.begins(prompt)
        return cut(self.pair.tokenizer.decode(tokens, begins), self.stop_strings)


def rules_by_row(
    settings: Sequence[Setting], kinds: Sequence[Setting]
) -> tuple[tuple[rules.Rule, ...], list[int]]:
    """Returns rules, knobs [B], and which of them each row follows.

    Args:
      settings: per row; of one `program`.
      kinds: a setting for each `rule_kind`, as in `Engine.prepare`.
    """
    order = [rule_kind(kind) for kind in kinds]
    own = tuple(_rule(kind, settings) for kind in kinds if kind.rule is not None)
    return own or (rules.make("spec"),), [order.index(rule_kind(setting)) for setting in settings]


def _rule(kind: Setting, settings: Sequence[Setting]) -> rules.Rule:
    """Returns a rule with knobs [B]; other rules' rows get those of `kind`, which nobody reads."""
    own = [s if rule_kind(s) == rule_kind(kind) else kind for s in settings]
    columns: dict[str, Any] = {}
    for name, knob in rules.definition(kind.rule).knobs.items():
        values = [dict(s.knobs)[name] for s in own]
        columns[name] = values[0] if knob.static else values
    return rules.make(kind.rule, **columns)


def limits_of(limits: Sequence[Pairs]) -> Truncation | None:
    """Returns the limits of rows on one model, of the same kinds in every row; None for none."""
    if not limits[0]:
        return None
    rows = [dict(pairs) for pairs in limits]
    columns: dict[str, Any] = {k: [row[k] for row in rows] for k in TRUNCATIONS if k in rows[0]}
    return Truncation(**columns)
