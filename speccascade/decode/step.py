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
from speccascade.decode.decide import Decision, begun, decide
from speccascade.decode.drafters.interface import Draft, Drafter, EndsDraft, Request
from speccascade.decode.rows import Rows
from speccascade.decode.state import Emission, State, Stats
from speccascade.errors import UserError
from speccascade.kernels import VERIFIER, Twin
from speccascade.models.interface import Model
from speccascade.randomness import Role, RowKeys, uniforms_by_role
from speccascade.rules import Rule
from speccascade.sharding import Layout, Placement
from speccascade.sharding.active import use
from speccascade.verify import METHODS, Uniforms, Verdict


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What a compiled decode program depends on; hashable, so it is a static argument.

    Attributes:
      expert: scores the blocks.
      drafter: writes them.
      draft_length: N, tokens per block.
      max_new_tokens: the most tokens that a row may ask for.
      verifier: "token" or "block"; "kernel" where the rows' rules are acceptance kernels, a `Twin`
        where they are that a token at a time.
      logprobs: whether the log-probabilities of the emitted tokens are kept.
      layout: how models and rows lie on a mesh; None for one device.
    """

    expert: Model
    drafter: Drafter
    draft_length: int
    max_new_tokens: int
    verifier: str | Twin = "token"
    logprobs: bool = False
    layout: Layout | None = None

    def __post_init__(self):
        known = (*METHODS, VERIFIER)
        if not isinstance(self.verifier, Twin) and self.verifier not in known:
            raise UserError(
                f"verifier {self.verifier!r} is unknown; choose one of: {', '.join(known)}"
            )
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} must be at least 1")

    @property
    def carry_shape(self) -> tuple[int, ...] | None:
        """The shape of what a row keeps from block to block, for kernels; None for nothing."""
        if isinstance(self.verifier, Twin):
            return (2,)
        return () if self.verifier == VERIFIER else None

    @property
    def overhang(self) -> int:
        """The most tokens that a block may write past the end of a row, or in vain."""
        return self.draft_length + 1

    def placement(self, role: str) -> Placement | None:
        """Returns how "drafter" or "expert" lies on the mesh; None for one device."""
        if self.layout is None:
            return None
        if role == "drafter":
            return self.drafter.placement(self.layout)
        return self.layout.of(role, self.expert)


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
    counts = {Role.DRAFT: decoder.drafter.uniforms(size), Role.ACCEPT: size, Role.TOKEN: 1}
    noise = uniforms_by_role(RowKeys(rows.seed, rows.example_id), state.count, counts)

    # Draft.
    request = Request(
        state.text,
        state.length,
        state.previous,
        state.last,
        state.position,
        noise[Role.DRAFT],
        rows.temperature,
        rows.drafter_truncation,
        size,
        rows.drafting,
    )
    bonus = any(rules_lib.uses_q(rule) for rule in rules)
    with use(decoder.placement("drafter")):
        draft, drafter = decoder.drafter.draft(
            params["drafter"], state.drafter, request, _ends_draft(rules, rows), bonus
        )

    # Score: the block in one pass, behind the newest token.
    block = jnp.concatenate([state.last[:, None], draft.tokens], axis=1)
    positions = state.position[:, None] + jnp.arange(size + 1)
    with use(decoder.placement("expert")):
        logits, expert = decoder.expert.apply(params["expert"], block, positions, state.expert)

        # Verify.
        uniform = Uniforms(noise[Role.ACCEPT], noise[Role.TOKEN][:, 0])
        carry = state.carry
        if decoder.carry_shape is not None:
            carry = begun(rules, rows, carry, state.count)
        decision = decide(
            decoder.verifier, decoder.logprobs, rules, rows, draft, logits, uniform, carry
        )

    # Commit.
    kept = decision.verdict.num_accepted
    emission = Emission(
        tokens=decision.tokens,
        count=kept + 1,
        logprob=decision.logprob,
        expert_logprob=decision.expert_logprob,
        valid=draft.valid & decision.valid,
    )
    new, emitted = state_lib.commit(state, rows, emission)
    counted = _count(state, draft, decision, kept, emitted)
    ran = state.stats.expert_calls.astype(jnp.int32)  # a row that is done adds a zero behind them
    blocks = state_lib.append(state.blocks, emitted[:, None], ran)
    new = new._replace(
        drafter=drafter, expert=expert, stats=counted, blocks=blocks, carry=decision.carry
    )
    record = Record(draft, decision.p, decision.pi, decision.deferral, decision.verdict, emitted)
    return new, record


def _ends_draft(rules: tuple[Rule, ...], rows: Rows):
    """Returns what asks each row's rule whether drafting ends, None if none does."""
    if not any(rules_lib.can_end_draft(rule) for rule in rules):
        return None
    return EndsDraft(rules, rows.rule_index)


def _count(state: State, draft: Draft, decision: Decision, kept, emitted) -> Stats:
    """Adds a block to the counts of the rows that were not done."""
    tested = jnp.minimum(jnp.minimum(kept + 1, draft.length), emitted)

    def over_first(count, values):
        return jnp.sum(jnp.where(jnp.arange(values.shape[1]) < count[:, None], values, 0.0), axis=1)

    active = emitted > 0  # a block emits at least one token, unless its logits were not finite
    block = Stats(
        emitted=emitted,
        expert_calls=active,
        drafter_calls=draft.calls,
        drafted=draft.length,
        accepted=jnp.minimum(kept, emitted),
        tested=tested,
        rejected=(kept < draft.length) & (kept < emitted),
        tv_sum=over_first(tested, decision.distance),
        deferral_sum=over_first(emitted, decision.deferral),
    )
    return jax.tree.map(lambda old, new: old + jnp.where(active, new, 0.0), state.stats, block)
