"""One block of the decode loop: draft, score, verify, commit.

The step knows no rule's name and no model's architecture. It is the same function whether a
`lax.while_loop` drives it or Python does (`loop.py`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from speccascade import rules as rules_lib
from speccascade.decode import state as state_lib
from speccascade.decode.drafters import Draft, Drafter, Request
from speccascade.decode.rows import Rows
from speccascade.decode.state import Emission, State, Stats
from speccascade.errors import UserError
from speccascade.models.interface import Model
from speccascade.randomness import Role, row_keys, uniforms
from speccascade.rules import Distributions, Rule, Target
from speccascade.sampling import confidence, distribution
from speccascade.verify import METHODS, Uniforms, Verdict, verify


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a compiled decode program depends on; hashable, so it is a static argument.

    Attributes:
      expert: scores the blocks.
      drafter: writes them.
      draft_length: N, tokens per block.
      max_new_tokens: the most tokens that a row may ask for.
      verifier: "token" or "block".
      logprobs: whether the log-probabilities of the emitted tokens are kept.
    """

    expert: Model
    drafter: Drafter
    draft_length: int
    max_new_tokens: int
    verifier: str = "token"
    logprobs: bool = False

    def __post_init__(self):
        if self.verifier not in METHODS:
            raise UserError(
                f"verifier {self.verifier!r} is unknown; choose one of: {', '.join(METHODS)}"
            )
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} must be at least 1")

    @property
    def overhang(self) -> int:
        """The most tokens that a block may write past the end of a row."""
        return self.draft_length + 1


class Record(NamedTuple):
    """What happened in one block, for tracing; unused parts cost nothing once compiled.

    Attributes:
      draft: the drafted block.
      p: float32 [B, N + 1, V], the expert as sampled from.
      pi: float32 [B, N + 1, V], the target distribution.
      deferral: float32 [B, N + 1], the deferred mass; NaN where the method has no such thing.
      verdict: the verifier's decision.
      emitted: int32 [B], tokens that the block added to each row.
    """

    draft: Draft
    p: jax.Array
    pi: jax.Array
    deferral: jax.Array
    verdict: Verdict
    emitted: jax.Array


def step(
    decoder: Decoder, params: dict[str, Any], rules: tuple[Rule, ...], rows: Rows, state: State
) -> tuple[State, Record]:
    """Decodes one block of every row that is not done.

    Args:
      decoder: the program; static.
      params: `{"drafter": ..., "expert": ...}`.
      rules: the run's rules; knobs of shape [B] go by row.
      rows: the batch.
      state: where each row stands.

    Returns:
      The new state and a record of the block.
    """
    size = decoder.draft_length
    keys = row_keys(rows.seed, rows.example_id)

    def noise(role, count):
        return uniforms(keys, state.count, role, count)

    # Draft.
    request = Request(
        state.previous,
        state.last,
        state.position,
        noise(Role.DRAFT, size),
        rows.temperature,
        rows.drafter_truncation,
    )
    bonus = any(rules_lib.uses_q(rule) for rule in rules)
    draft, drafter = decoder.drafter.draft(
        params["drafter"], state.drafter, request, _ends_draft(rules, rows), bonus
    )

    # Score: the block in one pass, behind the newest token.
    block = jnp.concatenate([state.last[:, None], draft.tokens], axis=1)
    positions = state.position[:, None] + jnp.arange(size + 1)
    logits, expert = decoder.expert.apply(params["expert"], block, positions, state.expert)
    p = distribution(logits, rows.temperature, rows.expert_truncation)
    p1 = confidence(logits)

    # Verify.
    target = _target(rules, rows, draft, p, p1)
    accept, token = noise(Role.ACCEPT, size), noise(Role.TOKEN, 1)[:, 0]
    q = draft.q[:, :size]
    verdict = verify(
        None,
        draft.tokens,
        q,
        target.pi,
        length=draft.length,
        method=decoder.verifier,
        uniforms=Uniforms(accept, token),
    )

    # Commit.
    kept = verdict.num_accepted
    tokens = jnp.concatenate([draft.tokens, draft.tokens[:, :1] if size else block], axis=1)
    tokens = jnp.where(jnp.arange(size + 1) == kept[:, None], verdict.next_token[:, None], tokens)
    finite = jnp.all(jnp.isfinite(jnp.max(logits, axis=-1)), axis=-1)
    zeros = jnp.zeros(tokens.shape, jnp.float32)
    emission = Emission(
        tokens=tokens,
        count=kept + 1,
        logprob=_log_of(target.pi, tokens) if decoder.logprobs else zeros,
        expert_logprob=_log_of(p1, tokens) if decoder.logprobs else zeros,
        valid=draft.valid & finite,
    )
    new, emitted = state_lib.commit(state, rows, emission)
    counted = _count(state, draft, q, target, kept, emitted)
    new = new._replace(drafter=drafter, expert=expert, stats=counted)
    return new, Record(draft, p, target.pi, target.deferral, verdict, emitted)


def _ends_draft(rules: tuple[Rule, ...], rows: Rows):
    """Returns the function that asks each row's rule whether drafting ends, None if none does."""
    if not any(rules_lib.can_end_draft(rule) for rule in rules):
        return None
    return lambda q1: _by_row([rules_lib.ends_draft(rule, q1) for rule in rules], rows.rule_index)


def _target(rules: tuple[Rule, ...], rows: Rows, draft: Draft, p, p1) -> Target:
    """Returns each row's target under its own rule, at all N + 1 positions at once."""

    def padded(q):
        # Without the bonus position no rule reads q there.
        missing = p.shape[1] - q.shape[1]
        return jnp.pad(q, ((0, 0), (0, missing), (0, p.shape[2] - q.shape[2])))

    d = Distributions(padded(draft.q), p, padded(draft.q1), p1)
    targets = [rules_lib.apply(rule, d) for rule in rules]
    pi = _by_row([t.pi for t in targets], rows.rule_index)
    return Target(pi, _by_row([t.deferral for t in targets], rows.rule_index))


def _by_row(choices: list[jax.Array], index: jax.Array) -> jax.Array:
    """Returns `choices[index[b]][b]` for every row b."""
    chosen = choices[0]
    for i, choice in enumerate(choices[1:], start=1):
        chosen = jnp.where((index == i).reshape(-1, *(1,) * (choice.ndim - 1)), choice, chosen)
    return chosen


def _log_of(probs: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns the log-probabilities of `tokens [B, M]` under `probs [B, M, V]`."""
    return jnp.log(jnp.take_along_axis(probs, tokens[..., None], axis=-1)[..., 0])


def _count(state: State, draft: Draft, q, target: Target, kept, emitted) -> Stats:
    """Adds a block to the counts of the rows that were not done."""
    size = q.shape[1]
    tested = jnp.minimum(jnp.minimum(kept + 1, draft.length), emitted)

    def over_first(count, values):
        return jnp.sum(jnp.where(jnp.arange(values.shape[1]) < count[:, None], values, 0.0), axis=1)

    distance = jnp.zeros(q.shape[:2])
    if size:
        distance = rules_lib.total_variation(target.pi[:, :size], q)[..., 0]
    active = emitted > 0  # a block emits at least one token, unless its logits were not finite
    block = Stats(
        emitted=emitted,
        expert_calls=active,
        drafter_calls=draft.calls,
        drafted=draft.length,
        accepted=jnp.minimum(kept, emitted),
        tested=tested,
        rejected=(kept < draft.length) & (kept < emitted),
        tv_sum=over_first(tested, distance),
        deferral_sum=over_first(emitted, target.deferral),
    )
    return jax.tree.map(lambda old, new: old + jnp.where(active, new, 0.0), state.stats, block)
