"""The three things that a model class must do, over a pair and a setting, without the library."""

import dataclasses
import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.inference import stream
from speccascade.inference.engine import Engine
from speccascade.lm_eval import arguments, likelihood, requests
from speccascade.lm_eval.requests import Asked
from speccascade.pairs import Pair

_log = logging.getLogger(__name__)


class Backend:
    """A pair and a setting that answer, and score answers."""

    def __init__(self, pair: Pair, given: arguments.Arguments):
        """Takes a pair and what is asked of it."""
        self.pair = pair
        self.given = given
        # How conversations were written out for the library, and what they are.
        self._chats: dict[str, tuple[list[Mapping[str, str]], str]] = {}
        Engine.build(pair, [[0]], 1).check(given.setting)

    @classmethod
    def load(cls, given: Mapping[str, Any]) -> "Backend":
        """Returns what `--model_args` describe.

        Raises:
          UserError: they, or the pair, are not as they must be.
        """
        read = arguments.read(given)
        return cls(pairs.load(read.source), read)

    # ---- conversations ----

    @property
    def template(self) -> str:
        """The tokenizer's chat template.

        Raises:
          UserError: there is none.
        """
        found = self.pair.tokenizer.settings.template
        if found is None:
            raise UserError(
                f"pair {self.pair.name} has no chat template; leave out --apply_chat_template"
            )
        return found

    def chat(self, messages: Sequence[Mapping[str, str]], answers: bool = True) -> str:
        """Returns a conversation as a text that `generate` and `loglikelihood` know again.

        Args:
          messages: `{"role": ..., "content": ...}`.
          answers: whether a new answer comes next; if not, the last message is the answer's
            beginning.

        Raises:
          UserError: there is no chat template, or it refuses these messages.
        """
        self.template  # noqa: B018 - raises where there is none
        opening = "" if answers else messages[-1]["content"]
        own = list(messages if answers else messages[:-1])
        text = self.pair.tokenizer.chat(own) + opening
        self._chats[text] = own, opening
        return text

    def _warn(self, contexts: Iterable[str]) -> None:
        """Tells of contexts that look like conversations and are none that were made here."""
        special = self.pair.tokenizer.special
        unknown = (context for context in contexts if context not in self._chats)
        count = sum(any(name in context for name in special) for context in unknown)
        if count:
            _log.warning(
                "%d contexts spell special tokens, which are read as text; if they are "
                "conversations of an earlier run, give --cache_requests refresh",
                count,
            )

    def _prompt(self, context: str) -> list[int]:
        """Returns what the models read of a context."""
        tokenizer = self.pair.tokenizer
        if context in self._chats:
            messages, opening = self._chats[context]
            (begun,) = tokenizer.encode_answers([opening], self.pair.answers_begin)
            return tokenizer.encode_chat(messages) + begun
        return tokenizer.encode(context, bos=True) if context else [self._first]

    @property
    def _first(self) -> int:
        """What stands before a text that has nothing before it."""
        settings = self.pair.tokenizer.settings
        return settings.prefix[0] if settings.prefix else settings.eos_ids[0]

    # ---- answers ----

    def generate(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Returns the answer to each context, by its `generation_kwargs`.

        An answer's noise goes by its context and by how often that stands before it in the list:
        repetitions differ, and neither other tasks nor a limit change anything.

        Raises:
          UserError: a request is not as it must be, or logits are not finite.
        """
        special = self.pair.tokenizer.special
        own = self.given
        self._warn(context for context, _ in asked)
        read = [
            requests.read(kwargs, special, own.temperature, own.max_new_tokens)
            for _, kwargs in asked
        ]
        prompts = self._fitted([context for context, _ in asked], read)
        keys = _keys(asked)
        groups = defaultdict(list)
        for i, one in enumerate(read):
            groups[one.stop_strings].append(i)
        found: dict[int, str] = {}
        for group in groups.values():
            answers = self._answers(
                [prompts[i] for i in group], [read[i] for i in group], [keys[i] for i in group]
            )
            found |= dict(zip(group, answers, strict=True))
        return [found[i] for i in range(len(asked))]

    def _fitted(self, contexts: Sequence[str], read: Sequence[Asked]) -> list[list[int]]:
        """Returns the contexts' ids; of one that is too long what stands last, as is usual here."""
        found, cut = [], 0
        for context, one in zip(contexts, read, strict=True):
            ids = self._prompt(context)
            room = self.pair.lengths.for_prompt(one.max_new_tokens)
            if room is not None and room < 1:
                raise UserError(
                    f"max_gen_toks={one.max_new_tokens} leaves no room for a context; lower it, "
                    "--gen_kwargs max_gen_toks=N"
                )
            cut += room is not None and len(ids) > room
            found.append(ids if room is None else ids[-room:])
        if cut:
            _log.warning("%d of %d contexts are too long and were cut at the left", cut, len(found))
        return found

    def _answers(
        self, prompts: list[list[int]], asked: list[Asked], keys: list[int]
    ) -> list[str]:
        """Returns answers that end at the same strings."""
        strings, names = asked[0].stop_strings, asked[0].stop_names
        most = max(one.max_new_tokens for one in asked)
        ends = [self.pair.tokenizer.special[name] for name in names]
        engine = Engine.build(self.pair, prompts, most, strings, ends)
        made, settings = [], []
        for prompt, one, key in zip(prompts, asked, keys, strict=True):
            request = engine.request(prompt, key, "a context")
            room = min(request.max_new_tokens, one.max_new_tokens)
            made.append(request._replace(max_new_tokens=room))
            setting = self.given.setting
            settings.append(dataclasses.replace(setting, temperature=one.temperature))
        slots = min(self.given.batch_size, len(made))
        run = stream.in_batches if slots == len(made) else stream.answers
        texts = {}
        for part in run(engine, settings, made, settings[:1], slots):
            for index, output, _ in part:
                if output.invalid:
                    raise UserError(
                        "the models' logits are not finite; look at the checkpoints and the dtype"
                    )
                tokens = output.tokens[: output.num_tokens].tolist()
                texts[index] = engine.text(tokens, prompts[index])
        return [texts[i] for i in range(len(made))]

    # ---- log-likelihoods ----

    def loglikelihood(self, asked: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Returns the log-likelihood of each continuation of a context, and whether it is greedy.

        Raises:
          UserError: the setting has none, or a continuation is too long.
        """
        likelihood.target(self.given.setting)
        self._warn(context for context, _ in asked)
        texts = [self._cut(*self._split(context, following)) for context, following in asked]
        return self._scores(texts)

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Returns the log-likelihood of each whole text.

        Raises:
          UserError: the setting or the pair has none.
        """
        likelihood.target(self.given.setting)
        if self.pair.answers_begin:
            raise UserError(
                f"pair {self.pair.name} is an encoder-decoder; it scores no text without a prompt"
            )
        most = self.pair.lengths.together
        parts, owner = [], []
        for i, ids in enumerate(self.pair.tokenizer.encode_batch(texts)):
            for part in likelihood.windows(ids, self._first, most):
                parts.append(part)
                owner.append(i)
        totals = [0.0] * len(texts)
        for i, (value, _) in zip(owner, self._scores(parts), strict=True):
            totals[i] += value
        return totals

    def _scores(self, texts: Sequence[likelihood.Text]) -> list[tuple[float, bool]]:
        return likelihood.scores(self.pair, self.given.setting, texts, self.given.batch_size)

    def _split(self, context: str, following: str) -> likelihood.Text:
        """Returns a context's ids and those of what follows, encoded as one text where they are.

        As usual here, a space at the context's end belongs to what follows.
        """
        tokenizer = self.pair.tokenizer
        apart = context in self._chats or not context or self.pair.answers_begin
        if apart:
            begins = self.pair.answers_begin or not context
            return self._prompt(context), tokenizer.encode_answers([following], begins)[0]
        kept = context.rstrip()
        following = context[len(kept) :] + following
        if not kept:
            return [self._first], tokenizer.encode(following)
        before = self._prompt(kept)
        return before, self._prompt(kept + following)[len(before) :]

    def _cut(self, prompt: Sequence[int], answer: Sequence[int]) -> likelihood.Text:
        """Returns both with as much of the prompt, from its end, as there is room for."""
        most = self.pair.lengths.for_prompt(len(answer))
        if most is not None and most < 1:
            raise UserError(
                f"a continuation has {len(answer)} tokens and leaves no room for its context; "
                "leave its task out"
            )
        return (prompt if most is None else prompt[-most:]), answer


def _keys(asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[int]:
    """Returns what keys the random draws of each request."""
    seen: Counter[str] = Counter()
    found = []
    for context, kwargs in asked:
        text = json.dumps([context, kwargs], sort_keys=True, default=str)
        digest = hashlib.sha256(f"{seen[text]} {context}".encode()).digest()
        seen[text] += 1
        found.append(int.from_bytes(digest[:4]) >> 1)
    return found
