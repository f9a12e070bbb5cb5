"""More prompts than rows: a row that is done is given the next prompt, while the others go on.

The device decodes in bursts of blocks, each of which ends when enough rows are done for a prefill
to be worth its pass; then the host hands out what they became and fills them anew. Noise goes by
example, not by row or time, so the schedule touches no token.

On a mesh each of its parts that has rows of its own reads the prompts for those rows itself:
no cache goes from one to another.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from speccascade.decode import loop, placing
from speccascade.decode import state as state_lib
from speccascade.decode.rows import Rows
from speccascade.decode.state import Output, State
from speccascade.decode.step import Decoder
from speccascade.rules import Rule
from speccascade.sharding import hosts

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


def parts_of(decoder: Decoder) -> int:
    """Returns among how many parts of the mesh rows are divided; 1 for one device."""
    return 1 if decoder.layout is None else decoder.layout.ways(decoder.layout.rows.rules.batch)


def _by_part(decoder: Decoder, f: Callable, *args: Any) -> Batch:
    """Returns a batch that each part of the mesh makes of its own rows.

    Args:
      decoder: the program; static.
      f: a function of `args` to a batch.
      args: a batch without a stop table, first; others, of rows alone.
    """
    if decoder.layout is None:
        return f(*args)
    rules, rows, state = args[0]
    laid_out = Batch(
        placing.rule_shardings(decoder, rules),
        placing.rows_shardings(decoder, rows),
        placing.state_shardings(decoder, state),
    )
    specs = jax.tree.map(lambda sharding: sharding.spec, laid_out)
    of_rows = partial(decoder.layout.rows.spec, P("batch"))
    in_specs = tuple(specs if isinstance(arg, Batch) else of_rows(arg.shape) for arg in args)
    return jax.shard_map(f, mesh=decoder.layout.mesh, in_specs=in_specs, out_specs=specs)(*args)


@partial(jax.jit, static_argnums=(0, 1))
def begin(decoder: Decoder, slots: int, params: dict[str, Any], fresh: Fresh, working) -> Batch:
    """Returns a batch of `slots` rows, which in each part of the mesh repeat its prompts.

    Args:
      decoder: the program; static.
      slots: B, a multiple of the mesh's parts; static.
      params: `{"drafter": ..., "expert": ...}`.
      fresh: rules and rows of R prompts, another multiple of them.
      working: bool [B]. Rows that are not are done.
    """
    rules, rows = fresh
    table = jnp.asarray(rows.stop_table)
    read = Batch(rules, rows._replace(stop_table=()), loop.prefill(decoder, params, rows))

    def spread(read: Batch) -> Batch:
        index = jnp.arange(slots // parts_of(decoder)) % read.rows.prompt.shape[0]
        return jax.tree.map(lambda x: jnp.take(x, index, axis=0), read)

    made = _by_part(decoder, spread, read)
    state = made.state._replace(done=made.state.done | ~working)
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
      slots: int32 [R], the row for each, counted within its part of the mesh; one beyond the last
        there for what goes nowhere.
    """
    rules, rows = fresh
    rows = rows._replace(stop_table=())
    read = Batch(rules, rows, loop.prefill(decoder, params, rows))
    table = batch.rows.stop_table
    batch = batch._replace(rows=batch.rows._replace(stop_table=()))

    def put(batch: Batch, read: Batch, slots) -> Batch:
        return jax.tree.map(lambda old, new: old.at[slots].set(new, mode="drop"), batch, read)

    new = _by_part(decoder, put, batch, read, slots)
    return new._replace(rows=new.rows._replace(stop_table=table))


_output = jax.jit(state_lib.output)


def rows_at_once(slots: int) -> int:
    """Returns how many rows a prefill fills: few, so that rows wait little, yet worth a pass."""
    return max(min(4, slots), slots // 8)


def _places(idle: np.ndarray, each: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives prompts to rows that are idle, to the parts of the mesh in turn.

    Args:
      idle: bool [P, B / P], by part.
      each: the most that a part takes.
      count: how many prompts there are.

    Returns:
      Which prompt each of the rows to be read is, int [P, each], -1 for none, and the row of its
      part that it goes to, one beyond the last for none.
    """
    prompt = np.full((len(idle), each), -1)
    row = np.full(prompt.shape, idle.shape[1])
    free = [np.flatnonzero(own)[:each] for own in idle]
    turns = ((part, i) for i in range(each) for part, own in enumerate(free) if i < len(own))
    for number, (part, i) in zip(range(count), turns, strict=False):
        prompt[part, i], row[part, i] = number, free[part][i]
    return prompt, row


def stream(
    decoder: Decoder,
    params: dict[str, Any],
    make: Callable[[Sequence[int]], Fresh],
    count: int,
    slots: int,
) -> Iterator[list[Answered]]:
    """Answers any number of prompts in `slots` rows.

    Args:
      decoder: the program.
      params: `{"drafter": ..., "expert": ...}`.
      make: from some prompts' indices to rules, knobs [R], and rows; always of one width and, where
        there are as many prompts, of one R.
      count: how many prompts there are. They are begun in order.
      slots: B, a multiple of the mesh's parts (`parts_of`).

    Yields:
      The rows that were found done together, as soon as they are known.

    Raises:
      UserError: decoder, rules and rows do not fit together.
    """
    parts = parts_of(decoder)
    each = rows_at_once(slots // parts)
    size, left = each * parts, np.arange(count)
    owner = np.full((parts, slots // parts), -1)  # the prompt in each row, -1 for none
    seconds = np.zeros(count)
    batch = following = None

    def made(chunk: np.ndarray) -> Fresh:
        # A short one is filled up with copies, which go nowhere.
        rules, rows = make([*chunk.tolist(), *[int(chunk[0])] * (size - len(chunk))])
        loop.check(decoder, rules, rows.drafting)
        loop.check_rows(rows, decoder.max_new_tokens, len(rules))
        return rules, rows

    while len(left) or (owner >= 0).any():
        began = time.monotonic()
        while len(left) and (owner < 0).sum() >= len(chunk := left[:size]):
            rules, rows = following or made(chunk)
            prompt, row = _places(owner < 0, each, len(chunk))
            given = prompt >= 0
            part, _ = np.nonzero(given)
            owner[part, row[given]] = chunk[prompt[given]]
            left, following = left[given.sum() :], None
            fresh = _taken(rules, rows, prompt)
            if batch is None:
                fresh, working = _placed(decoder, fresh, owner >= 0)
                batch = begin(decoder, slots, params, fresh, working)
                continue
            fresh = fresh[0], fresh[1]._replace(stop_table=())
            batch = refill(decoder, params, batch, *_placed(decoder, fresh, row.astype(np.int32)))
        wanted = min(size, len(left)) or (owner < 0).sum() + size
        state = loop.run(decoder, params, *batch, np.int32(wanted))
        batch = batch._replace(state=state)
        found, done = _output(state), state.done
        if len(left) and following is None:  # while the device is at work
            following = made(left[:size])
        found, done = hosts.gather((found, done))
        working = owner >= 0
        seconds[owner[working]] += (time.monotonic() - began) / working.sum()
        ended = working & done.reshape(owner.shape)
        answered: list[Answered] = []
        for at in np.flatnonzero(ended):
            index = int(owner.flat[at])
            own = jax.tree.map(lambda x, at=at: x[at], found)
            answered.append(Answered(index, own, float(seconds[index])))
        owner[ended] = -1
        yield answered


def _taken(rules: tuple[Rule, ...], rows: Rows, prompt: np.ndarray) -> Fresh:
    """Returns rules and rows with each prompt where it is read."""
    index = np.maximum(prompt.ravel(), 0)
    if (index == np.arange(len(index))).all():
        return rules, rows
    own = rules, rows._replace(stop_table=())
    rules, taken = jax.tree.map(lambda x: np.asarray(x)[index], own)
    return rules, taken._replace(stop_table=rows.stop_table)


def _placed(decoder: Decoder, fresh: Fresh, by_row: np.ndarray) -> tuple[Fresh, Any]:
    """Puts rules, rows and an array that goes by rows where they belong."""
    by_row = by_row.ravel()
    if decoder.layout is None:
        return fresh, by_row
    where = decoder.layout.rows.sharding(P("batch"), by_row.shape)
    return placing.place(decoder, *fresh), hosts.put(by_row, where)
