"""Who writes the block: anything that yields tokens, the exact distributions they were sampled
from, and how many tokens each row drafted.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade import rules as rules_lib
from speccascade.models.interface import Model, Params
from speccascade.rules import Rule
from speccascade.sampling import Truncation, confidence, distribution, draw
from speccascade.sharding.active import over_vocabulary, pad_vocabulary
from speccascade.vocab import WHOLE, Vocab

ROWS, AT_ROWS, AT_POSITIONS = P("batch"), P("batch", "vocab"), P("batch", None, "vocab")
"""Logical axes of what has an entry per row [B], of distributions [B, V] and [B, M, V]."""


class Request(NamedTuple):
    """What a drafter is asked.

    Attributes:
      previous: int32 [B], the token before `last`.
      last: int32 [B], the newest token.
      position: int32 [B], the position of `last`.
      uniforms: float32 [B, K], K as the drafter's `uniforms` says; N for a single model, one per
        draft token.
      temperature: float32 [B].
      truncation: limits on what may be drafted, or None.
      size: N; static.
      middle_rule: what a cascade drafts by, knobs `[]` or `[B]`; None for other drafters.
    """

    previous: jax.Array
    last: jax.Array
    position: jax.Array
    uniforms: jax.Array
    temperature: jax.Array
    truncation: Truncation | None
    size: int
    middle_rule: Rule | None = None


class EndsDraft(NamedTuple):
    """Asks each row's rule whether drafting ends.

    Attributes:
      rules: the run's rules.
      rule_index: int32 [B].
    """

    rules: tuple[Rule, ...]
    rule_index: jax.Array

    def __call__(self, q1: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
        """Maps q1 `[B, V]` to bool [B], true where drafting ends before that position."""
        ends = [rules_lib.ends_draft(rule, q1, vocab) for rule in self.rules]
        return by_row(ends, self.rule_index)


def by_row(choices: list[jax.Array], index: jax.Array) -> jax.Array:
    """Returns `choices[index[b]][b]` for every row b."""
    chosen = choices[0]
    for i, choice in enumerate(choices[1:], start=1):
        chosen = jnp.where((index == i).reshape(-1, *(1,) * (choice.ndim - 1)), choice, chosen)
    return chosen


class Draft(NamedTuple):
    """A drafted block.

    Attributes:
      tokens: int32 [B, N].
      q: float32 [B, M, V], the distribution of each token as sampled; M is N + 1 where the bonus
        position was asked for, else N. Under a layout V is padded to equal shards.
      q1: float32 [B, M, V], the same at temperature 1, untruncated.
      length: int32 [B] in 0..N, tokens really drafted.
      calls: int32 [B], drafter passes taken.
      middle_calls: int32 [B], passes of a middle model taken; 0 where there is none.
      valid: bool [B], false where the drafter's logits were not finite.
    """

    tokens: jax.Array
    q: jax.Array
    q1: jax.Array
    length: jax.Array
    calls: jax.Array
    middle_calls: jax.Array
    valid: jax.Array


class Drafter(Protocol):
    """The interface that the decode step knows. Implementations are frozen and hashable."""

    def uniforms(self, size: int) -> int:
        """Returns how many uniforms a row's block of `size` tokens may take."""
        ...

    def prefill(self, params: Params, prompt: jax.Array, length: jax.Array, slots: int) -> Any:
        """Returns the drafter's state after right-padded prompts int32 [B, T]."""
        ...

    def draft(
        self,
        params: Params,
        state: Any,
        request: Request,
        ends_draft: EndsDraft | None,
        bonus: bool,
    ) -> tuple[Draft, Any]:
        """Drafts a block.

        Args:
          params: the drafter's parameters.
          state: from `prefill` or the last call.
          request: what to draft.
          ends_draft: tells where drafting ends; None where it never does.
          bonus: whether q is wanted at the position after the block too.

        Returns:
          The block and the new state. Accepted or not, the next request tells where to go on.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoDrafter:
    """Drafts nothing: with it, the decode step is plain autoregressive decoding of the expert."""

    def uniforms(self, size):
        """Takes none."""
        return 0

    def prefill(self, params, prompt, length, slots):
        """Has no state."""
        return ()

    def draft(self, params, state, request, ends_draft, bonus):
        """Returns a block of no tokens; there is no q, and a rule that needs one is refused."""
        none = jnp.zeros_like(request.last)
        empty = jnp.zeros((none.shape[0], 0, 0))
        tokens = jnp.zeros((none.shape[0], 0), jnp.int32)
        return Draft(tokens, empty, empty, none, none, none, none == 0), state


@dataclasses.dataclass(frozen=True)
class ModelDrafter:
    """A language model that samples its block token by token.

    Attributes:
      model: the model.
      rereads: whether `previous` may be missing from the cache with the bonus position too.
    """

    model: Model
    rereads: bool = False

    def uniforms(self, size):
        """Takes one per token."""
        return size

    def prefill(self, params, prompt, length, slots):
        """Returns the model's cache after the prompts."""
        cache = self.model.init_cache(prompt.shape[0], slots)
        return self.model.prefill(params, prompt, length, cache).cache

    def draft(self, params, state, request, ends_draft, bonus):
        """Drafts N tokens in N passes, or N + 1 with the bonus position; see `Drafter.draft`."""
        batch, size = request.uniforms.shape
        steps = size if bonus else size - 1  # passes after the first

        def look(vocab, logits_BV, temperature, truncation, ends_draft):
            finite = jnp.isfinite(vocab.max(logits_BV)[..., 0])
            q = distribution(logits_BV, temperature, truncation, vocab)
            q1 = confidence(logits_BV, vocab)
            return q, q1, finite, () if ends_draft is None else ends_draft(q1, vocab)

        look_sharded = over_vocabulary(
            look, (AT_ROWS, ROWS, ROWS, ROWS), (AT_ROWS, AT_ROWS, ROWS, ROWS)
        )
        draw_sharded = over_vocabulary(lambda vocab, q, u: draw(q, u, vocab), (AT_ROWS, ROWS), ROWS)

        def distributions(logits_BV):
            logits_BV = pad_vocabulary(logits_BV)
            return look_sharded(logits_BV, request.temperature, request.truncation, ends_draft)

        def put(buffer, value, i):
            return jax.lax.dynamic_update_slice_in_dim(buffer, value[:, None], i, axis=1)

        def choose(i, q):
            u = jax.lax.dynamic_slice_in_dim(request.uniforms, i, 1, axis=1)[:, 0]
            return draw_sharded(q, u)

        def goes_on(active, ends):
            return active if ends_draft is None else active & ~ends

        def step(carry):
            i, cache, q, tokens, qs, q1s, active, length, valid = carry
            token = choose(i, q)
            logits, cache = self.model.apply(
                params, token[:, None], (request.position + 1 + i)[:, None], cache
            )
            q, q1, finite, ends = distributions(logits[:, 0])
            tokens, qs, q1s = put(tokens, token, i), put(qs, q, i + 1), put(q1s, q1, i + 1)
            length, active = length + active, goes_on(active, ends)
            return i + 1, cache, q, tokens, qs, q1s, active, length, valid & finite

        def unfinished(carry):
            going = carry[0] < steps
            return going if ends_draft is None else going & jnp.any(carry[6])

        logits, cache = self._first(params, state, request, bonus and not self.rereads)
        q, q1, valid, ends = distributions(logits)
        buffer = jnp.zeros((batch, steps + 1, q.shape[-1]), q.dtype)
        carry = (
            jnp.int32(0),
            cache,
            q,
            jnp.zeros((batch, size), jnp.int32),
            put(buffer, q, 0),
            put(buffer, q1, 0),
            goes_on(jnp.ones((batch,), bool), ends),
            jnp.zeros((batch,), jnp.int32),
            valid,
        )
        carry = jax.lax.while_loop(unfinished, step, carry)
        i, cache, q, tokens, qs, q1s, active, length, valid = carry
        if not bonus:
            tokens, length = put(tokens, choose(i, q), i), length + active
        # A row that ended early took one pass more than it has tokens: the one that ended it.
        calls = length + (length < size) if not bonus else length + 1
        return Draft(tokens, qs, q1s, length, calls, jnp.zeros_like(calls), valid), cache

    def _first(self, params, cache, request: Request, bonus: bool):
        """Returns the logits after `last`, [B, V], and the cache.

        With the bonus position every token but `last` is in the cache already. Without it, the last
        token of a fully accepted block is not: its write rides with this pass.
        """
        if bonus:
            logits, cache = self.model.apply(
                params, request.last[:, None], request.position[:, None], cache
            )
            return logits[:, 0], cache
        # At position 0 there is no token before `last`; what stands behind it is overwritten next.
        start = jnp.maximum(request.position - 1, 0)
        tokens = jnp.stack(
            [jnp.where(request.position > 0, request.previous, request.last), request.last], axis=1
        )
        positions = jnp.stack([start, start + 1], axis=1)
        logits, cache = self.model.apply(params, tokens, positions, cache)
        index = (request.position - start)[:, None, None]
        return jnp.take_along_axis(logits, index, axis=1)[:, 0], cache
