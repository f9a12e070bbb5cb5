"""The state of a batch that is being decoded, and how a block of tokens is committed to it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from speccascade.decode.rows import Rows
from speccascade.decode.stopping import STOP, advance


class Stats(NamedTuple):
    """Counts per row, float32 [B]; NaN where a method has no such thing.

    Positions after the first rejection and after the end of the row are never counted. A *tested*
    position is one up to and including the first rejection.

    Attributes:
      emitted: tokens generated, replacement and bonus tokens included.
      expert_calls: expert passes after the prefill.
      drafter_calls: passes after the prefill of each of the drafter's models, by its role.
      drafted: tokens drafted.
      accepted: draft tokens kept.
      tested: positions tested.
      rejected: tested positions at which the draft was rejected.
      tv_sum: sum of TV(pi, q) over tested positions.
      deferral_sum: sum of the deferred mass `sum_v q(v) r(v)` over the emitted tokens' positions.
    """

    emitted: jax.Array
    expert_calls: jax.Array
    drafter_calls: dict[str, jax.Array]
    drafted: jax.Array
    accepted: jax.Array
    tested: jax.Array
    rejected: jax.Array
    tv_sum: jax.Array
    deferral_sum: jax.Array

    def by_name(self) -> dict[str, jax.Array]:
        """Returns all counts side by side, those of a drafter's model as `ROLE_calls`."""
        counts = self._asdict()
        calls = counts.pop("drafter_calls")
        return {**counts, **{f"{role}_calls": count for role, count in calls.items()}}


class State(NamedTuple):
    """Everything that changes from block to block.

    Attributes:
      text: int32 [B, T + W], each row's prompt and behind it what the row generated; W has room
        for one whole block past the maximum.
      length: int32 [B], tokens of `text`.
      logprob: float32 [B, W], log pi of each token generated.
      expert_logprob: float32 [B, W], log p1 of each token.
      count: int32 [B], tokens generated.
      previous: int32 [B], the token before `last`.
      last: int32 [B], the newest token, not yet in the caches.
      position: int32 [B], the position of `last`.
      stop_state: int32 [B], the stop automaton's state.
      done: bool [B].
      invalid: bool [B], rows ended by logits that were not finite.
      blocks: int32 [B, W], tokens that each block of a row added, in order; zeros behind them.
      stats: counts per row.
      drafter: the drafter's state.
      expert: the expert's cache.
      carry: float32 [B] or [B, 2], what kernels remember of each row, see `kernels`; () where rules
        decide.
    """

    text: jax.Array
    length: jax.Array
    logprob: jax.Array
    expert_logprob: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples
    previous: jax.Array
    last: jax.Array
    position: jax.Array
    stop_state: jax.Array
    done: jax.Array
    invalid: jax.Array
    blocks: jax.Array
    stats: Stats
    drafter: Any
    expert: Any
    carry: Any = ()

    @property
    def tokens(self) -> jax.Array:
        """What each row generated, int32 [B, W]."""
        return _cut(self.text, self.length - self.count, self.logprob.shape[1])


@partial(jax.jit, static_argnums=2)
def _cut(text: jax.Array, start: jax.Array, width: int) -> jax.Array:
    """Returns `width` entries of each row from `start` on."""
    return jnp.take_along_axis(text, start[:, None] + jnp.arange(width), axis=1)


class Output(NamedTuple):
    """What a batch became.

    Attributes:
      tokens: int32 [B, W]; each row's own are the first `num_tokens`, an end-of-sequence included.
      num_tokens: int32 [B].
      finished: bool [B], ended by an end-of-sequence id or a stop string, not by running out of
        room.
      invalid: bool [B], ended by logits that were not finite.
      logprob: float32 [B, W], log pi of each token; zeros where not asked for.
      expert_logprob: float32 [B, W], log p1 of each token; zeros where not asked for.
      blocks: int32 [B, W], tokens that each block added, in order; zeros behind them, and where
        there are no blocks.
      stats: counts per row.
    """

    tokens: jax.Array
    num_tokens: jax.Array
    finished: jax.Array
    invalid: jax.Array
    logprob: jax.Array
    expert_logprob: jax.Array
    blocks: jax.Array
    stats: Stats


def initial(
    rows: Rows,
    width: int,
    last,
    position,
    drafter: Any,
    expert: Any,
    roles: Sequence[str],
    carry_shape: tuple[int, ...] | None = None,
) -> State:
    """Returns the state after the prompts were read.

    Args:
      rows: the batch.
      width: W.
      last: int32 [B], from the expert's prefill.
      position: int32 [B], likewise.
      drafter: the drafter's state.
      expert: the expert's cache.
      roles: of the drafter's models.
      carry_shape: of what kernels remember of a row; None where rules decide.
    """
    batch, slots = rows.prompt.shape

    def full(value, dtype, *shape):
        return jnp.full((batch, *shape), value, dtype)

    before = jnp.maximum(rows.prompt_length - 2, 0)[:, None]
    own = jnp.arange(slots) < rows.prompt_length[:, None]
    zero = full(0, jnp.float32)
    counts = dict.fromkeys(Stats._fields, zero)
    return State(
        text=jnp.pad(jnp.where(own, rows.prompt, 0), ((0, 0), (0, width))),
        length=jnp.asarray(rows.prompt_length),
        logprob=full(0, jnp.float32, width),
        expert_logprob=full(0, jnp.float32, width),
        count=full(0, jnp.int32),
        previous=jnp.take_along_axis(rows.prompt, before, axis=1)[:, 0],
        last=last,
        position=position,
        stop_state=rows.stop_state,
        done=rows.max_new_tokens <= 0,
        invalid=full(False, bool),
        blocks=full(0, jnp.int32, width),
        stats=Stats(**{**counts, "drafter_calls": dict.fromkeys(roles, zero)}),
        drafter=drafter,
        expert=expert,
        carry=() if carry_shape is None else full(0, jnp.float32, *carry_shape),
    )


class Emission(NamedTuple):
    """A block's tokens on their way into the state.

    Attributes:
      tokens: int32 [B, M].
      count: int32 [B] in 1..M, how many of them were decided.
      logprob: float32 [B, M].
      expert_logprob: float32 [B, M].
      valid: bool [B], false where the logits were not finite; such a row ends and emits nothing.
    """

    tokens: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples
    logprob: jax.Array
    expert_logprob: jax.Array
    valid: jax.Array


def append(buffer: jax.Array, values: jax.Array, end: jax.Array) -> jax.Array:
    """Writes `values` [B, M] into rows of a buffer [B, W], each from its `end`, int32 [B], on."""
    return jax.vmap(lambda b, v, at: jax.lax.dynamic_update_slice(b, v, (at,)))(
        buffer, values.astype(buffer.dtype), end
    )


def commit(state: State, rows: Rows, block: Emission) -> tuple[State, jax.Array]:
    """Appends a block to every row that is not done, up to its end.

    Returns:
      The state (its blocks, stats, drafter, expert and carry as they were) and the tokens really
      emitted, int32 [B]: up to the first that ends the row, and no more than its maximum allows.
    """
    states = advance(rows.stop_table, state.stop_state, block.tokens)
    index = jnp.arange(block.tokens.shape[1])
    ends = (states == STOP) & (index < block.count[:, None])
    stopped = jnp.any(ends, axis=1)
    count = jnp.where(stopped, jnp.argmax(ends, axis=1) + 1, block.count)
    room = rows.max_new_tokens - state.count
    stopped &= count <= room
    count = jnp.minimum(count, room)
    count = jnp.where(state.done | ~block.valid, 0, count).astype(jnp.int32)
    moved = count > 0

    def at(values, i):
        return jnp.take_along_axis(values, jnp.maximum(i, 0)[:, None], axis=1)[:, 0]

    last = jnp.where(moved, at(block.tokens, count - 1), state.last)
    before = jnp.where(count > 1, at(block.tokens, count - 2), state.last)
    new = state._replace(
        # What a row does not emit now lies behind its end and is overwritten by its next block.
        text=append(state.text, block.tokens, state.length),
        length=state.length + count,
        logprob=append(state.logprob, block.logprob, state.count),
        expert_logprob=append(state.expert_logprob, block.expert_logprob, state.count),
        count=state.count + count,
        previous=jnp.where(moved, before, state.previous),
        last=last,
        position=state.position + count,
        stop_state=jnp.where(moved, at(states, count - 1), state.stop_state),
        invalid=state.invalid | (~state.done & ~block.valid),
        done=state.done | stopped | ~block.valid | (state.count + count >= rows.max_new_tokens),
    )
    return new, count


def output(state: State) -> Output:
    """Returns the finished rows."""
    finished = state.stop_state == STOP
    return Output(
        state.tokens,
        state.count,
        finished,
        state.invalid,
        state.logprob,
        state.expert_logprob,
        state.blocks,
        state.stats,
    )
