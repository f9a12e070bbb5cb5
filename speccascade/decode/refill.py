"""More prompts than rows: a row that is done is given the next prompt, while the others go on.

The device decodes in bursts of blocks, each of which ends when enough rows are done for a prefill
to be worth its pass; then the host hands out what they became and fills them anew. Noise goes by
example, not by row or time, so the schedule touches no token.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.decode import loop
from speccascade.decode import state as state_lib
from speccascade.decode.rows import Rows
from speccascade.decode.state import Output, State
from speccascade.decode.step import Decoder
from speccascade.rules import Rule

Fresh = tuple[tuple[Rule, ...], Rows]


class Answered(NamedTuple):
    """A row that is done.

    Attributes:
      index: which of the prompts it answers.
      output: what it became: arrays of NumPy, without the batch's axis.
      seconds: its share of the time that the batch took while it was in it: of each moment, one
        part in as many as there were rows at work.
    """

    index: int  # type: ignore[assignment]  # hides a method of tuples
    output: Output
    seconds: float


class Batch(NamedTuple):
    """What a device decodes; every array but the stop table has the row as its first axis.

    Attributes:
      rules: the run's, knobs [B].
      rows: what each row asks for.
      state: where each row stands.
    """

    rules: tuple[Rule, ...]
    rows: Rows
    state: State


@partial(jax.jit, static_argnums=(0, 1))
def begin(decoder: Decoder, slots: int, params: dict[str, Any], fresh: Fresh, count) -> Batch:
    """Returns a batch of `slots` rows, of which the first `count` are at work.

    Args:
      decoder: the program; static.
      slots: B; static.
      params: `{"drafter": ..., "expert": ...}`.
      fresh: rules and rows of R prompts.
      count: int32 [], at most R. Rows from there on are copies of the others, and done.
    """
    rules, rows = fresh
    state = loop.prefill(decoder, params, rows)
    index = jnp.arange(slots)

    def spread(x):
        return jnp.take(x, index % rows.prompt.shape[0], axis=0)

    table = jnp.asarray(rows.stop_table)
    made = jax.tree.map(spread, Batch(rules, rows._replace(stop_table=()), state))
    state = made.state._replace(done=made.state.done | (index >= count))
    return Batch(made.rules, made.rows._replace(stop_table=table), state)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def refill(
    decoder: Decoder, params: dict[str, Any], batch: Batch, fresh: Fresh, slots: jax.Array
) -> Batch:
    """Reads R prompts and puts them into rows of the batch, whose buffers are donated.

    A row is overwritten whole: nothing of what was in it stays, logits that were not finite least.

    Args:
      decoder: the program; static.
      params: `{"drafter": ..., "expert": ...}`.
      batch: where the rows go.
      fresh: rules and rows of R prompts, of the batch's width; their stop table is not read.
      slots: int32 [R], the row for each; one beyond the last for what goes nowhere.
    """
    rules, rows = fresh
    rows = rows._replace(stop_table=())
    read = Batch(rules, rows, loop.prefill(decoder, params, rows))
    table = batch.rows.stop_table
    batch = batch._replace(rows=batch.rows._replace(stop_table=()))
    new = jax.tree.map(lambda old, new: old.at[slots].set(new, mode="drop"), batch, read)
    return new._replace(rows=new.rows._replace(stop_table=table))


_output = jax.jit(state_lib.output)


def rows_at_once(slots: int) -> int:
    """Returns how many rows a prefill fills: few, so that rows wait little, yet worth a pass."""
    return max(min(4, slots), slots // 8)


def stream(
    decoder: Decoder,
    params: dict[str, Any],
    make: Callable[[Sequence[int]], Fresh],
    count: int,
    slots: int,
) -> Iterator[list[Answered]]:
    """Answers any number of prompts in `slots` rows, on one device.

    Args:
      decoder: the program; without a layout.
      params: `{"drafter": ..., "expert": ...}`.
      make: from some prompts' indices to rules, knobs [R], and rows; always of one width and, where
        there are as many prompts, of one R.
      count: how many prompts there are. They are begun in order.
      slots: B.

    Yields:
      The rows that were found done together, as soon as they are known.

    Raises:
      UserError: decoder, rules and rows do not fit together.
    """
    size = rows_at_once(slots)
    chunks = [range(at, min(at + size, count)) for at in range(0, count, size)]
    owner = np.full(slots, -1)  # the prompt in each row, -1 for none
    seconds = np.zeros(count)
    batch = None

    def made(chunk: range) -> Fresh:
        # A short one is filled up with copies, which go nowhere.
        rules, rows = make([*chunk, *[chunk[0]] * (size - len(chunk))])
        loop.check(decoder, rules, rows.drafting)
        loop.check_rows(rows, decoder.max_new_tokens, len(rules))
        return rules, rows

    following = made(chunks[0]) if chunks else None
    while chunks or (owner >= 0).any():
        began = time.monotonic()
        while chunks and (owner < 0).sum() >= len(chunks[0]):
            chunk = chunks.pop(0)
            fresh = following or made(chunk)
            following = None
            idle = np.flatnonzero(owner < 0)[: len(chunk)]
            owner[idle] = chunk
            if batch is None:
                batch = begin(decoder, slots, params, fresh, np.int32(len(chunk)))
                continue
            places = np.full(size, slots, np.int32)
            places[: len(chunk)] = idle
            fresh = fresh[0], fresh[1]._replace(stop_table=())
            batch = refill(decoder, params, batch, fresh, places)
        wanted = (owner < 0).sum() + size if not chunks else len(chunks[0])
        state = loop.run(decoder, params, *batch, np.int32(wanted))
        batch = batch._replace(state=state)
        found, done = _output(state), state.done
        if chunks and following is None:  # while the device is at work
            following = made(chunks[0])
        found, done = jax.device_get((found, done))
        working = owner >= 0
        seconds[owner[working]] += (time.monotonic() - began) / working.sum()
        part = []
        for row in np.flatnonzero(working & done):
            index = int(owner[row])
            own = jax.tree.map(lambda x, row=row: x[row], found)
            part.append(Answered(index, own, float(seconds[index])))
        owner[working & done] = -1
        yield part
