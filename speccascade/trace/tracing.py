"""Decodes one prompt under several settings and keeps who wrote what."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from speccascade import decode
from speccascade.errors import UserError
from speccascade.inference import metrics
from speccascade.inference.engine import Engine, Request
from speccascade.inference.setting import Setting
from speccascade.inputs import plain_text
from speccascade.pairs import Pair
from speccascade.randomness import Role, RowKeys, uniforms_by_role, words
from speccascade.trace import record as record_lib
from speccascade.trace.record import Block, Token
from speccascade.verify import Uniforms


@dataclasses.dataclass(frozen=True)
class Trace:
    """An answer under one setting.

    Attributes:
      setting: how it was decoded.
      blocks: its calls of the expert, in order.
      text: the answer as `generate` gives it, up to the first stop string.
      finished: whether the answer came to its end, rather than running out of room.
      statistics: counts and rates, those of `scripts/generate.py`.
    """

    setting: Setting
    blocks: tuple[Block, ...]
    text: str
    finished: bool
    statistics: dict[str, Any]

    @property
    def tokens(self) -> list[Token]:
        """What the answer is made of."""
        return [token for block in self.blocks for token in block.tokens]

    @property
    def discarded(self) -> list[Token]:
        """What was drafted and thrown away."""
        return [token for block in self.blocks for token in block.discarded]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One prompt under several settings.

    Attributes:
      pair: the pair's name.
      prompt: what the models read.
      max_new_tokens: the most tokens of an answer.
      traces: one per setting.
      prompt_cut: how many tokens the prompt lost, to fit the pair.
    """

    pair: str
    prompt: str
    max_new_tokens: int
    traces: tuple[Trace, ...]
    prompt_cut: int = 0

    def parts_at(self, trace: Trace) -> int | None:
        """The index of the first token that differs from the first setting's, None for none."""
        first = [token.id for token in self.traces[0].tokens]
        own = [token.id for token in trace.tokens]
        if first == own:
            return None
        both = zip(first, own, strict=False)
        return next((i for i, (a, b) in enumerate(both) if a != b), min(len(first), len(own)))


def trace_prompt(
    pair: Pair,
    prompt: str,
    settings: Sequence[Setting],
    *,
    max_new_tokens: int = 64,
    stop_strings: str | Sequence[str] = (),
) -> Comparison:
    """Decodes a prompt under each setting, through the step that `generate` runs.

    Args:
      pair: from `pairs.load`.
      prompt: what the models read.
      settings: of the method "speculative". Each is decoded alone, as the first prompt of a call
        of `api.generate_text` would be, with the same random draws.
      max_new_tokens: the most tokens of an answer.
      stop_strings: an answer ends before the first of these.

    Raises:
      UserError: the prompt is no text, empty or too long, or the models' logits are not finite. Or
        a setting is of another method: the trace asks what a rule's target was.
    """
    for setting in settings:
        if not (setting.method.in_blocks and setting.method.has_rule):
            raise UserError(f"setting {setting} has no target to trace; give a rule that has one")
    (fitted,) = pair.fit_prompts([plain_text.one(prompt, "the prompt")], max_new_tokens)
    engine = Engine.build(pair, [fitted.ids], max_new_tokens, stop_strings)
    request = engine.request(fitted.ids, 0, "the prompt", fitted.cut)
    traces = tuple(_trace(engine, request, setting) for setting in settings)
    return Comparison(pair.name, prompt, max_new_tokens, traces, request.cut)


def _trace(engine: Engine, request: Request, setting: Setting) -> Trace:
    tokenizer = engine.pair.tokenizer
    opening = partial(tokenizer.token_bytes, begins=True) if engine.begins(request.prompt) else None
    writer = record_lib.Writer(tokenizer.token_bytes, tokenizer.eos_ids, opening)
    keys = RowKeys(words(setting.seed)[None], np.array([request.example_id]))
    start = np.zeros(1, np.int32)
    blocks = []
    for state, record in engine.prepare([setting], [request], [setting], decode.trace)():
        if np.any(state.invalid):
            raise UserError(
                "the models' logits are not finite; look at the checkpoints and the dtype"
            )
        counts = {Role.ACCEPT: setting.draft_length, Role.TOKEN: 1}
        drawn = uniforms_by_role(keys, start, counts)
        draws = Uniforms(drawn[Role.ACCEPT], drawn[Role.TOKEN][:, 0])
        numbers = record_lib.numbers(record, draws, setting.verifier)
        blocks.append(writer.block(numbers, 0, setting.verifier, bool(state.done[0])))
        start = state.count
    output = jax.tree.map(lambda x: x[0], jax.device_get(decode.state.output(state)))
    return Trace(
        setting=setting,
        blocks=tuple(blocks),
        text=engine.text([t.id for block in blocks for t in block.tokens], request.prompt),
        finished=bool(output.finished),
        statistics=metrics.rates(metrics.counts(output, setting), setting),
    )
