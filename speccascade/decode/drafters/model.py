"""A language model that drafts."""

import dataclasses

import jax
import jax.numpy as jnp

from speccascade.decode.drafters.interface import (
    AT_ROWS,
    ROWS,
    Dense,
    Draft,
    Request,
    check_asks_nothing,
    check_size,
    check_vocabulary,
)
from speccascade.models.interface import Model
from speccascade.sampling import confidence, distribution, draw
from speccascade.sharding.active import over_vocabulary, pad_vocabulary


@dataclasses.dataclass(frozen=True)
class ModelDrafter:
    """A language model that samples its block token by token.

    Attributes:
      model: the model.
      rereads: whether `previous` may be missing from the cache with the bonus position too.
    """

    model: Model
    rereads: bool = False

    roles = ("drafter",)

    def check(self, expert, size, rules, drafting):
        """Raises UserError where the models share no vocabulary; see `Drafter.check`."""
        check_size(size)
        check_asks_nothing(drafting)
        check_vocabulary(self.model, expert)

    def placement(self, layout):
        """Returns how the model lies on a mesh."""
        return layout.of("drafter", self.model)

    def param_shardings(self, placement):
        """Returns those of the model's parameters."""
        return placement.params(self.model)

    def state_shardings(self, placement, state):
        """Returns those of the model's cache."""
        return placement.shardings(self.model.cache_axes(state), state)

    def uniforms(self, size):
        """Takes one per token."""
        return size

    def prefill(self, params, prompt, length, slots, overhang):
        """Returns the model's cache after the prompts."""
        cache = self.model.init_cache(prompt.shape[0], slots, overhang)
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
        return Draft(tokens, Dense(qs, q1s), length, {"drafter": calls}, valid), cache

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
