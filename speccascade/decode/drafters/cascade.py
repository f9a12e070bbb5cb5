"""A drafter that is a speculative cascade itself: with it three models decode together.

The smallest model drafts n tokens, the middle one scores them in one pass, the middle rule makes
its target pi_1 of both, and the verifier keeps a prefix: one *round*, repeated until the expert's
block is full. A round emits tokens of exactly pi_1's law given what precedes them, so the block is
a sample of pi_1, and pi_1 is the q that the expert's rule and verifier see. Whatever the middle
rule is, the law of the whole is the sequential definition: the outer rule applied to (pi_1, p).

Where the block ends inside a round the rest of the round is dropped. That biases nothing: a block
of N tokens is the beginning of a longer sample of pi_1, cut at a place that was known before, and a
token that is dropped is drafted again, if at all, with the noise of another block start.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from speccascade import rules as rules_lib
from speccascade.decode.drafters.interface import (
    AT_POSITIONS,
    ROWS,
    Dense,
    Draft,
    EndsDraft,
    Request,
    check_size,
    check_vocabulary,
)
from speccascade.decode.drafters.model import ModelDrafter
from speccascade.errors import UserError
from speccascade.models.interface import Model
from speccascade.rules import Distributions, Rule
from speccascade.sampling import Truncation, confidence, distribution
from speccascade.sharding.active import over_vocabulary, pad_vocabulary, use_for
from speccascade.verify import Uniforms, verify
from speccascade.vocab import Vocab


class Caches(NamedTuple):
    """The state of a cascade drafter.

    Attributes:
      drafter: the smallest model's cache.
      middle: the middle model's.
    """

    drafter: Any
    middle: Any


class _Round(NamedTuple):
    """What a round decided.

    Attributes:
      tokens: int32 [B, n + 1], the draft with the verifier's token behind the kept ones.
      pi: float32 [B, n + 1, V], pi_1 at each position.
      pi1: float32 [B, n + 1, V], the same rule's target of the distributions at temperature 1.
      count: int32 [B], tokens emitted, the first ones of `tokens`.
      valid: bool [B], false where the middle model's logits were not finite.
    """

    tokens: jax.Array
    pi: jax.Array
    pi1: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples
    valid: jax.Array


class _Block(NamedTuple):
    """A block in the making. What stands behind `count` is overwritten by the next round.

    Attributes:
      tokens: int32 [B, M + n + 1], M being the positions asked for.
      q: float32 [B, M + n + 1, V].
      q1: float32 [B, M + n + 1, V].
      count: int32 [B] in 0..M.
      calls: int32 [B] each, by role.
      valid: bool [B].
      caches: both models'.
    """

    tokens: jax.Array
    q: jax.Array
    q1: jax.Array
    count: jax.Array  # type: ignore[assignment]  # hides a method of tuples
    calls: dict[str, jax.Array]
    valid: jax.Array
    caches: Caches


@dataclasses.dataclass(frozen=True)
class CascadeDrafter:
    """Two models and a rule that draft for a third.

    Its parameters are `{"drafter": ..., "middle": ...}`. The middle rule is what it asks of the
    rows (`drafting`), so that its knobs are traced and go by row. The limits on what may be drafted
    hold for both models.

    `Dense.q1`, from which the expert's rule reads the drafter's confidence, is the middle rule's
    target of the two models' distributions at temperature 1.

    Attributes:
      drafter: the smallest model.
      middle: the model between it and the expert.
      draft_length: n, tokens per round.
    """

    drafter: Model
    middle: Model
    draft_length: int

    roles = ("drafter", "middle")

    def __post_init__(self):
        if self.draft_length < 1:
            raise UserError(f"middle_draft_length={self.draft_length} must be at least 1")

    def check(self, expert, size, rules, drafting):
        """Raises UserError where models or rows do not fit; see `Drafter.check`."""
        check_size(size)
        if not isinstance(drafting, Rule):
            raise UserError("rows of a cascade drafter say by which rule to draft (drafting)")
        check_vocabulary(self.middle, expert, "middle model")
        check_vocabulary(self.drafter, expert)

    def placement(self, layout):
        """Returns how the middle model lies on a mesh; the other one lies by the same rules."""
        return layout.of("drafter", self.middle)

    def param_shardings(self, placement):
        """Returns those of both models' parameters."""
        return {
            "drafter": placement.for_model(self.drafter).params(self.drafter),
            "middle": placement.params(self.middle),
        }

    def state_shardings(self, placement, state):
        """Returns those of both models' caches."""
        return Caches(
            ModelDrafter(self.drafter).state_shardings(
                placement.for_model(self.drafter), state.drafter
            ),
            ModelDrafter(self.middle).state_shardings(placement, state.middle),
        )

    def uniforms(self, size):
        """Takes, for every offset at which a round may begin, 2 n + 1."""
        return (size + 1) * (2 * self.draft_length + 1)

    def prefill(self, params, prompt, length, slots, overhang):
        """Returns both models' caches after the prompts."""
        # A round may run so far past the end of a block.
        room = slots + self.draft_length, overhang + self.draft_length
        with use_for(self.drafter):
            small = ModelDrafter(self.drafter).prefill(params["drafter"], prompt, length, *room)
        return Caches(
            small, ModelDrafter(self.middle).prefill(params["middle"], prompt, length, *room)
        )

    def draft(self, params, state, request, ends_draft, bonus):
        """Drafts N tokens in as many rounds as the slowest row takes; see `Drafter.draft`.

        With the bonus position one token more is drafted, for its q, and dropped. Where the
        expert's rule ends the drafting early, what was drafted beyond is dropped too.
        """
        batch, size = request.last.shape[0], request.size
        wanted = size + 1 if bonus else size
        width = wanted + self.draft_length + 1
        vocab = pad_vocabulary(jnp.zeros((0, self.middle.vocab_size))).shape[-1]
        none = jnp.zeros((batch,), jnp.int32)
        block = _Block(
            tokens=jnp.zeros((batch, width), jnp.int32),
            q=jnp.zeros((batch, width, vocab), jnp.float32),
            q1=jnp.zeros((batch, width, vocab), jnp.float32),
            count=none,
            calls=dict.fromkeys(self.roles, none),
            valid=none == 0,
            caches=state,
        )

        def unfinished(block):
            return jnp.any(block.count < wanted)

        def one_round(block):
            return self._round(params, request, block, wanted, rereads=not bonus)

        block = jax.lax.while_loop(unfinished, one_round, block)
        q, q1 = block.q[:, :wanted], block.q1[:, :wanted]
        length = jnp.full((batch,), size, jnp.int32)
        if ends_draft is not None:
            look = over_vocabulary(
                lambda vocab, q1, ends: jax.vmap(lambda q1: ends(q1, vocab), 1, 1)(q1),
                (AT_POSITIONS, ROWS),
                ROWS,
            )
            goes_on = ~look(q1[:, :size], ends_draft)
            length = jnp.sum(jnp.cumprod(goes_on.astype(jnp.int32), axis=1), axis=1)
        made = Draft(
            tokens=block.tokens[:, :size],
            q=Dense(q, q1),
            length=length.astype(jnp.int32),
            calls=block.calls,
            valid=block.valid,
        )
        return made, block.caches

    def _round(self, params, request: Request, block: _Block, wanted: int, rereads: bool) -> _Block:
        """Adds a round's tokens to the rows whose block is not full.

        Rows that are full run along from their last position, and what they write there is behind
        their block or what stood there before.

        Args:
          params: both models'.
          request: for the whole block.
          block: so far.
          wanted: M.
          rereads: whether the token before the newest may be missing from the caches: without the
            bonus position, the last one of a block that the expert kept whole is.
        """
        n, rule = self.draft_length, request.drafting
        active = block.count < wanted
        text = jnp.concatenate([request.previous[:, None], request.last[:, None], block.tokens], 1)
        # A round's noise goes by where in its block it begins: no two of a row begin at one place.
        noise = request.uniforms.reshape(active.shape[0], request.size + 1, 2 * n + 1)
        noise = _at(noise, jnp.minimum(block.count, request.size))
        own = request._replace(
            previous=_at(text, block.count),
            last=_at(text, block.count + 1),
            position=request.position + block.count,
            uniforms=noise[:, :n],
            size=n,
            drafting=None,
        )

        # Draft.
        ends = None
        if rules_lib.can_end_draft(rule):
            ends = EndsDraft((rule,), jnp.zeros_like(block.count))
        with use_for(self.drafter):
            draft, drafter_cache = ModelDrafter(self.drafter, rereads).draft(
                params["drafter"], block.caches.drafter, own, ends, rules_lib.uses_q(rule)
            )

        # Score.
        logits, middle_cache = self._score(
            params["middle"], block.caches.middle, own, draft.tokens, rereads
        )

        # Verify.
        run = over_vocabulary(
            _decide,
            (
                ROWS,
                (ROWS, ROWS),
                draft.axes(),
                AT_POSITIONS,
                ROWS,
            ),
            _Round(ROWS, AT_POSITIONS, AT_POSITIONS, ROWS, ROWS),
        )
        made = run(
            rule,
            (request.temperature, request.truncation),
            draft,
            pad_vocabulary(logits),
            Uniforms(noise[:, n : 2 * n], noise[:, 2 * n]),
        )

        # Commit.
        def append(buffer, values):
            return jax.vmap(lambda b, v, at: jax.lax.dynamic_update_slice_in_dim(b, v, at, axis=0))(
                buffer, values, block.count
            )

        return _Block(
            tokens=append(block.tokens, made.tokens),
            q=append(block.q, made.pi),
            q1=append(block.q1, made.pi1),
            count=jnp.where(active, jnp.minimum(block.count + made.count, wanted), block.count),
            calls={
                "drafter": block.calls["drafter"] + jnp.where(active, draft.calls["drafter"], 0),
                "middle": block.calls["middle"] + active,
            },
            valid=block.valid & (~active | (draft.valid & made.valid)),
            caches=Caches(drafter_cache, middle_cache),
        )

    def _score(self, params, cache, own: Request, drafted, rereads: bool):
        """Returns the middle model's logits after `last` and each draft token, and its cache."""
        tokens = jnp.concatenate([own.last[:, None], drafted], axis=1)
        if not rereads:
            positions = own.position[:, None] + jnp.arange(tokens.shape[1])
            return self.middle.apply(params, tokens, positions, cache)
        # The token before `last` once more in front. At position 0 there is none: the row is
        # shifted by one, and what stands behind the draft then is overwritten next.
        tokens = jnp.concatenate([own.previous[:, None], tokens], axis=1)
        shift = (own.position == 0).astype(jnp.int32)[:, None]
        index = jnp.arange(tokens.shape[1])
        tokens = jnp.take_along_axis(
            tokens, jnp.minimum(index + shift, tokens.shape[1] - 1), axis=1
        )
        positions = own.position[:, None] - 1 + shift + index
        logits, cache = self.middle.apply(params, tokens, positions, cache)
        places = (1 - shift + index[:-1])[..., None]
        return jnp.take_along_axis(logits, places, axis=1), cache


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    """Returns `values[b, index[b]]` for every row b."""
    index = index.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.take_along_axis(values, index, axis=1)[:, 0]


def _decide(
    vocab: Vocab,
    rule: Rule,
    limits: tuple[jax.Array, Truncation | None],
    draft: Draft,
    logits: jax.Array,
    uniforms: Uniforms,
) -> _Round:
    """Decides on a round: one pure function of the models' logits, on shards of the vocabulary."""
    size = draft.tokens.shape[1]
    p, p1 = distribution(logits, *limits, vocab), confidence(logits, vocab)
    q, q1 = draft.q.spread(p, vocab)
    pi = rules_lib.apply(rule, Distributions(q, p, q1, p1), vocab).pi
    pi1 = rules_lib.apply(rule, Distributions(q1, p1, q1, p1), vocab).pi
    verdict = verify(
        None, draft.tokens, q[:, :size], pi, length=draft.length, uniforms=uniforms, vocab=vocab
    )
    kept, following = verdict.num_accepted[:, None], verdict.next_token[:, None]
    tokens = jnp.concatenate([draft.tokens, following], axis=1)
    return _Round(
        tokens=jnp.where(jnp.arange(size + 1) == kept, following, tokens),
        pi=pi,
        pi1=pi1,
        count=verdict.num_accepted + 1,
        valid=jnp.all(jnp.isfinite(vocab.max(logits)[..., 0]), axis=-1),
    )
