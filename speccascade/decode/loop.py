"""Whole generations: prompts in, tokens out, one jitted loop without a host round trip."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from speccascade import rules as rules_lib
from speccascade.decode import state as state_lib
from speccascade.decode.drafters import NoDrafter
from speccascade.decode.rows import Rows
from speccascade.decode.state import Output, State
from speccascade.decode.step import Decoder, Record, step
from speccascade.errors import UserError
from speccascade.models.interface import Model
from speccascade.rules import Rule


@partial(jax.jit, static_argnums=0)
def prefill(decoder: Decoder, params: dict[str, Any], rows: Rows) -> State:
    """Reads the prompts into both models' caches.

    Args:
      decoder: the program; static.
      params: `{"drafter": ..., "expert": ...}`.
      rows: the batch.
    """
    slots = rows.prompt.shape[1] + decoder.max_new_tokens + decoder.overhang
    batch = rows.prompt.shape[0]
    drafter = decoder.drafter.prefill(params["drafter"], rows.prompt, rows.prompt_length, slots)
    cache = decoder.expert.init_cache(batch, slots)
    read = decoder.expert.prefill(params["expert"], rows.prompt, rows.prompt_length, cache)
    width = decoder.max_new_tokens + decoder.overhang
    return state_lib.initial(rows, width, read.last, read.position, drafter, read.cache)


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def run(decoder: Decoder, params, rules: tuple[Rule, ...], rows: Rows, state: State) -> State:
    """Decodes blocks until every row is done. The state's buffers are donated."""

    def unfinished(state):
        return ~state.done.all()

    def body(state):
        return step(decoder, params, rules, rows, state)[0]

    return jax.lax.while_loop(unfinished, body, state)


_one_step = jax.jit(step, static_argnums=0)


def check(decoder: Decoder, rules: tuple[Rule, ...]) -> None:
    """Raises UserError where decoder and rules do not fit together."""
    if not rules:
        raise UserError("no rule was given; decoding needs at least one")
    if isinstance(decoder.drafter, NoDrafter):
        if decoder.draft_length != 0 or any(rules_lib.uses_q(rule) for rule in rules):
            raise UserError("without a drafter the draft length is 0 and the rule is spec")
    elif decoder.draft_length < 1:
        raise UserError(f"draft_length={decoder.draft_length} must be at least 1")
    drafter_model = getattr(decoder.drafter, "model", decoder.expert)
    if drafter_model.vocab_size != decoder.expert.vocab_size:
        raise UserError(
            f"the drafter has {drafter_model.vocab_size} token ids and the expert "
            f"{decoder.expert.vocab_size}; a pair must share one vocabulary"
        )


def generate(
    decoder: Decoder, params: dict[str, Any], rules: tuple[Rule, ...], rows: Rows
) -> Output:
    """Decodes a batch.

    Args:
      decoder: the program.
      params: `{"drafter": ..., "expert": ...}`.
      rules: the rules that rows index; only these are computed.
      rows: the batch.

    Raises:
      UserError: decoder and rules do not fit together.
    """
    check(decoder, rules)
    state = prefill(decoder, params, rows)
    return state_lib.output(run(decoder, params, rules, rows, state))


def trace(
    decoder: Decoder, params: dict[str, Any], rules: tuple[Rule, ...], rows: Rows
) -> Iterator[tuple[State, Record]]:
    """Decodes a batch block by block from Python, with the step that `generate` runs.

    Yields:
      The state after each block and the block's record.
    """
    check(decoder, rules)
    state = prefill(decoder, params, rows)
    while not state.done.all():
        state, record = _one_step(decoder, params, rules, rows, state)
        yield state, record


def autoregressive(model: Model, params: Any, rows: Rows, max_new_tokens: int, **options) -> Output:
    """Decodes a batch with one model, a token per pass.

    The model stands in the expert's place: `expert_truncation` limits it, and `expert_calls` counts
    its passes.

    Args:
      model: the model.
      params: its parameters.
      rows: the batch; its rule is ignored.
      max_new_tokens: the most tokens that a row may ask for.
      **options: further fields of `Decoder`.
    """
    decoder = Decoder(model, NoDrafter(), 0, max_new_tokens, **options)
    return generate(decoder, {"drafter": (), "expert": params}, (rules_lib.make("spec"),), rows)
