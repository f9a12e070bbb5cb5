"""Whole generations: prompts in, tokens out, one jitted loop without a host round trip."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from speccascade.decode import placing
from speccascade.decode import state as state_lib
from speccascade.decode.drafters.none import NoDrafter
from speccascade.decode.rows import Rows
from speccascade.decode.state import Output, State
from speccascade.decode.step import Decoder, Record, step
from speccascade.errors import UserError
from speccascade.kernels import KERNELS
from speccascade.models.interface import Model
from speccascade.rules import RULES, Rule, make
from speccascade.sharding.active import use
from speccascade.verify import METHODS


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
    with use(decoder.placement("drafter")):
        drafter = decoder.drafter.prefill(
            params["drafter"], rows.prompt, rows.prompt_length, slots, decoder.overhang
        )
    with use(decoder.placement("expert")):
        cache = decoder.expert.init_cache(batch, slots, decoder.overhang)
        read = decoder.expert.prefill(params["expert"], rows.prompt, rows.prompt_length, cache)
    width = decoder.max_new_tokens + decoder.overhang
    roles = decoder.drafter.roles
    state = state_lib.initial(
        rows, width, read.last, read.position, drafter, read.cache, roles, decoder.carry_shape
    )
    return placing.constrain(decoder, state)


@partial(jax.jit, static_argnums=0, donate_argnums=4)
def run(
    decoder: Decoder,
    params,
    rules: tuple[Rule, ...],
    rows: Rows,
    state: State,
    enough: jax.Array | None = None,
) -> State:
    """Decodes blocks until every row is done, or `enough` (int32 []) of them where that is given.

    The state's buffers are donated.
    """

    def unfinished(state):
        all_done = state.done.all()
        return ~all_done if enough is None else ~all_done & (state.done.sum() < enough)

    def body(state):
        return placing.constrain(decoder, step(decoder, params, rules, rows, state)[0])

    return jax.lax.while_loop(unfinished, body, state)


@partial(jax.jit, static_argnums=0)
def _one_step(decoder: Decoder, params, rules, rows: Rows, state: State):
    state, record = step(decoder, params, rules, rows, state)
    return placing.constrain(decoder, state), record


def check(decoder: Decoder, rules: tuple[Rule, ...], drafting: Any = None) -> None:
    """Raises UserError where decoder, rules and what rows ask of the drafter do not fit together.

    Args:
      decoder: the program.
      rules: the run's.
      drafting: of the rows.
    """
    if not rules:
        raise UserError("no rule was given; decoding needs at least one")
    known = RULES if decoder.verifier in METHODS else KERNELS
    for rule in rules:
        if rule.name not in known:
            raise UserError(
                f"rule {rule.name} does not go with verifier {decoder.verifier!r}; it takes one of "
                f"{', '.join(known)}"
            )
    decoder.drafter.check(decoder.expert, decoder.draft_length, rules, drafting)
    decoder.placement("drafter")


def check_rows(rows: Rows, max_new_tokens: int, num_rules: int | None = None) -> None:
    """Raises UserError where a row asks for more than there is.

    Args:
      rows: the batch.
      max_new_tokens: the room that each row has.
      num_rules: how many rules rows may index; None where rows index none.
    """
    most = np.max(rows.max_new_tokens, initial=0)
    if most > max_new_tokens:
        raise UserError(
            f"a row asks for {most} new tokens and the decoder has room for {max_new_tokens}; "
            "raise the decoder's max_new_tokens"
        )
    index = np.asarray(rows.rule_index)
    if num_rules is not None and (bad := index[(index < 0) | (index >= num_rules)]).size:
        raise UserError(f"a row follows rule {bad[0]} and the run has {num_rules}, from 0 on")


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
      UserError: decoder, rules and rows do not fit together.
    """
    check(decoder, rules, rows.drafting)
    check_rows(rows, decoder.max_new_tokens, len(rules))
    rules, rows = placing.place(decoder, rules, rows)
    state = prefill(decoder, params, rows)
    return state_lib.output(run(decoder, params, rules, rows, state))


def trace(
    decoder: Decoder, params: dict[str, Any], rules: tuple[Rule, ...], rows: Rows
) -> Iterator[tuple[State, Record]]:
    """Decodes a batch block by block from Python, with the step that `generate` runs.

    Yields:
      The state after each block and the block's record.
    """
    check(decoder, rules, rows.drafting)
    check_rows(rows, decoder.max_new_tokens, len(rules))
    rules, rows = placing.place(decoder, rules, rows)
    state = prefill(decoder, params, rows)
    while not state.done.all():
        state, record = _one_step(decoder, params, rules, rows, state)
        yield state, record


def alone(model: Model, params: Any, max_new_tokens: int, **options) -> tuple[Decoder, dict]:
    """Returns the program of one model that decodes a token per pass, and its parameters.

    Its rule is `spec`; see `autoregressive` for the arguments.
    """
    decoder = Decoder(model, NoDrafter(), 0, max_new_tokens, **options)
    return decoder, {"drafter": (), "expert": params}


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
    decoder, params = alone(model, params, max_new_tokens, **options)
    rows = rows._replace(rule_index=np.zeros_like(rows.rule_index))
    return generate(decoder, params, (make("spec"),), rows)
