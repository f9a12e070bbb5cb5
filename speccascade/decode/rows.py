"""What a batch asks for, row by row."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from speccascade.errors import UserError
from speccascade.rules import Rule
from speccascade.sampling import Truncation


class Rows(NamedTuple):
    """A batch of requests; every field is traced, so no value of it recompiles.

    Attributes:
      prompt: int32 [B, T], right-padded.
      prompt_length: int32 [B], each at least 1.
      example_id: int32 [B]; with the seed it keys the row's random draws.
      seed: int32 [B].
      temperature: float32 [B], 0 for greedy.
      rule_index: int32 [B], which of the run's rules the row follows.
      max_new_tokens: int32 [B]; 0 for a row that only fills the batch.
      stop_state: int32 [B], the state of the stop automaton in which the row begins.
      stop_table: int32 [S, V], from `stopping.stop_table`.
      drafter_truncation: limits on the drafter's distribution, or None.
      expert_truncation: limits on the expert's distribution, or None.
      middle_rule: what a `CascadeDrafter` drafts by, knobs [B]; None for other drafters.
    """

    prompt: jax.Array
    prompt_length: jax.Array
    example_id: jax.Array
    seed: jax.Array
    temperature: jax.Array
    rule_index: jax.Array
    max_new_tokens: jax.Array
    stop_state: jax.Array
    stop_table: jax.Array
    drafter_truncation: Truncation | None = None
    expert_truncation: Truncation | None = None
    middle_rule: Rule | None = None


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
    middle_rule: Rule | None = None,
) -> Rows:
    """Pads prompts into a batch.

    Args:
      prompts: token ids of each row.
      stop_table: from `stopping.stop_table`.
      max_new_tokens: the most tokens to generate, per row or for all.
      prompt_slots: T; longer prompts are refused. Few values of it mean few compilations.
      temperature: per row or for all.
      seed: per row or for all.
      example_ids: per row; 0, 1, 2, ... where not given.
      rule_index: per row or for all.
      stop_state: per row or for all, see `stopping.stop_table`.
      drafter_truncation: fields per row or scalars.
      expert_truncation: fields per row or scalars.
      middle_rule: the rule of a `CascadeDrafter`, knobs per row or scalars.

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

    def per_row(value, dtype):
        return np.array(np.broadcast_to(np.asarray(value, dtype), (batch,)))

    temperatures = per_row(temperature, np.float32)
    if not np.all(np.isfinite(temperatures) & (temperatures >= 0)):
        raise UserError(f"temperature={temperature} must be finite and at least 0")
    return Rows(
        prompt=prompt,
        prompt_length=np.array([len(ids) for ids in prompts], np.int32),
        example_id=per_row(np.arange(batch) if example_ids is None else example_ids, np.int32),
        seed=per_row(seed, np.int32),
        temperature=temperatures,
        rule_index=per_row(rule_index, np.int32),
        max_new_tokens=per_row(max_new_tokens, np.int32),
        stop_state=per_row(stop_state, np.int32),
        stop_table=np.asarray(stop_table),
        drafter_truncation=_truncation(drafter_truncation, per_row),
        expert_truncation=_truncation(expert_truncation, per_row),
        middle_rule=jax.tree.map(lambda knob: per_row(knob, np.float32), middle_rule),
    )


def _truncation(truncation: Truncation | None, per_row) -> Truncation | None:
    if truncation is None or all(field is None for field in truncation):
        return None
    checks = {
        "top_k": (np.int32, lambda x: x >= 1, "at least 1"),
        "top_p": (np.float32, lambda x: (x > 0) & (x <= 1), "in (0, 1]"),
        "min_p": (np.float32, lambda x: (x >= 0) & (x <= 1), "in [0, 1]"),
    }
    fields = {}
    for name, (dtype, valid, domain) in checks.items():
        value = getattr(truncation, name)
        if value is None:
            continue
        fields[name] = per_row(value, dtype)
        if not np.all(valid(fields[name])):
            raise UserError(f"{name}={value} must be {domain}")
    return Truncation(**fields)
