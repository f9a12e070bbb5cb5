"""What a batch asks for, row by row."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from speccascade import randomness
from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.sampling import Truncation

Array = Any  # of numpy where a batch is made, of JAX where it is traced

_MOST = 2**31 - 1  # what an int32 holds
_LEAST = np.finfo(np.float32).tiny  # devices take what is smaller for 0


class Rows(NamedTuple):
    """A batch of requests; every field is traced, so no value of it recompiles.

    Attributes:
      prompt: int32 [B, T], right-padded.
      prompt_length: int32 [B], each at least 1.
      example_id: int32 [B]; with the seed it keys the row's random draws.
      seed: uint32 [B, 2], from `randomness.words`.
      temperature: float32 [B], 0 for greedy.
      rule_index: int32 [B], which of the run's rules the row follows.
      max_new_tokens: int32 [B]; 0 for a row that only fills the batch.
      stop_state: int32 [B], the state of the stop automaton in which the row begins.
      stop_table: int32 [S, V], from `stopping.stop_table`.
      drafter_truncation: limits on the drafter's distribution, or None.
      expert_truncation: limits on the expert's distribution, or None.
      drafting: what the drafter asks of its rows, a pytree of arrays [B]: the middle rule of a
        `CascadeDrafter`; None for the others.
    """

    prompt: Array
    prompt_length: Array
    example_id: Array
    seed: Array
    temperature: Array
    rule_index: Array
    max_new_tokens: Array
    stop_state: Array
    stop_table: Array
    drafter_truncation: Truncation | None = None
    expert_truncation: Truncation | None = None
    drafting: Any = None


def make_rows(
    prompts: Sequence[Sequence[int]],
    *,
    stop_table: np.ndarray,
    max_new_tokens: int | Sequence[int],
    prompt_slots: int,
    temperature: float | Sequence[float] = 0.0,
    seed: int | Sequence[int] = 0,
    example_ids: Sequence[int] | None = None,
    rule_index: int | Sequence[int] = 0,
    stop_state: int | Sequence[int] = 0,
    drafter_truncation: Truncation | None = None,
    expert_truncation: Truncation | None = None,
    drafting: Any = None,
) -> Rows:
    """Pads prompts into a batch.

    Args:
      prompts: token ids of each row.
      stop_table: from `stopping.stop_table`.
      max_new_tokens: the most tokens to generate, per row or for all.
      prompt_slots: T; longer prompts are refused. Few values of it mean few compilations.
      temperature: per row or for all.
      seed: any whole number, per row or for all.
      example_ids: whole numbers from 0 on, per row; 0, 1, 2, ... where not given.
      rule_index: per row or for all.
      stop_state: per row or for all, see `stopping.stop_table`.
      drafter_truncation: fields per row or scalars; a `top_k` above the vocabulary keeps all.
      expert_truncation: fields per row or scalars.
      drafting: what the drafter asks of its rows, per row or scalars; see `Rows`.

    Raises:
      UserError: a prompt is empty or longer than `prompt_slots`, or a value is out of range.
    """
    batch = len(prompts)
    vocab_size = stop_table.shape[1]
    prompt = np.zeros((batch, prompt_slots), np.int32)
    for i, ids in enumerate(prompts):
        if not len(ids):
            raise UserError(f"prompt {i} is empty; give it at least one token")
        if len(ids) > prompt_slots:
            raise UserError(
                f"prompt {i} has {len(ids)} tokens and the room is {prompt_slots}; "
                "shorten it or raise the prompt's room"
            )
        if min(ids) < 0 or max(ids) >= vocab_size:
            raise UserError(f"prompt {i} has ids outside the vocabulary of {vocab_size} tokens")
        prompt[i, : len(ids)] = ids

    def each(value):
        per_row = [value] * batch if np.ndim(value) == 0 else list(value)
        if len(per_row) != batch:
            raise UserError(f"{len(per_row)} values were given for {batch} rows")
        return per_row

    def whole(name, value, least=0):
        found = [values.whole(name, v, least) for v in each(value)]
        if max(found, default=0) > _MOST:
            raise UserError(f"{name}={max(found)} must be at most {_MOST}")
        return np.array(found, np.int32)

    def number(name, value, valid, domain):
        try:
            found = np.array([values.number(name, v) for v in each(value)], np.float64)
        except UserError:
            found = None
        if found is None or not np.all(valid(found)):
            raise UserError(f"{name}={value} must be {domain}")
        return found.astype(np.float32)

    def truncation(limits):
        given = {} if limits is None else limits._asdict()
        fields = {name: value for name, value in given.items() if value is not None}
        if "top_k" in fields:
            kept = fields["top_k"]
            if min((values.whole("top_k", k) for k in each(kept)), default=1) < 1:
                raise UserError(f"top_k={kept} must be at least 1")
            # One above the vocabulary keeps all of it.
            fields["top_k"] = np.array([min(int(k), vocab_size) for k in each(kept)], np.int32)
        if "top_p" in fields:
            kept = number("top_p", fields["top_p"], lambda x: (x > 0) & (x <= 1), "in (0, 1]")
            fields["top_p"] = np.maximum(kept, _LEAST)
        if "min_p" in fields:
            kept = number("min_p", fields["min_p"], lambda x: (x >= 0) & (x <= 1), "in [0, 1]")
            fields["min_p"] = kept
        return Truncation(**fields) if fields else None

    def warm(x):
        return (x >= 0) & (x <= np.finfo(np.float32).max)

    temperatures = number("temperature", temperature, warm, "finite and at least 0")
    temperatures = np.where(temperatures < _LEAST, np.float32(0), temperatures)
    return Rows(
        prompt=prompt,
        prompt_length=np.array([len(ids) for ids in prompts], np.int32),
        example_id=whole("example_id", range(batch) if example_ids is None else example_ids),
        seed=np.array([randomness.words(s) for s in each(seed)], np.uint32).reshape(batch, 2),
        temperature=temperatures,
        rule_index=whole("rule_index", rule_index, -_MOST),
        max_new_tokens=whole("max_new_tokens", max_new_tokens),
        stop_state=whole("stop_state", stop_state),
        stop_table=np.asarray(stop_table),
        drafter_truncation=truncation(drafter_truncation),
        expert_truncation=truncation(expert_truncation),
        drafting=jax.tree.map(lambda knob: np.array(each(knob), np.float32), drafting),
    )
