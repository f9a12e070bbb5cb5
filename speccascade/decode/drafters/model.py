"""A language model that drafts."""

import dataclasses
from typing import Any, NamedTuple

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


class _SoFar(NamedTuple):
    """A draft being written, B rows of at most P passes.

    Attributes:
      passes: how many the model has run, int32 [].
      cache: the model's.
      newest: the token to read next, int32 [B].
      tokens: one of each pass, int32 [B, P].
      q: what they were drawn from, [B, P, V].
      q1: the same at temperature 1, untruncated.
      active: the rows that go on, bool [B].
      length: tokens of the draft, int32 [B].
      valid: whether all logits were finite, bool [B].
    """

    passes: jax.Array
    cache: Any
    newest: jax.Array
    tokens: jax.Array
    q: jax.Array
    q1: jax.Array
    active: jax.Array
    length: jax.Array
    valid: jax.Array


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
        passes = size + 1 if bonus else size

        def look(vocab, logits_BV, temperature, truncation, ends_draft):
            finite = jnp.isfinite(vocab.max(logits_BV)[..., 0])
            q = distribution(logits_BV, temperature, truncation, vocab)
            q1 = confidence(logits_BV, vocab)
            return q, q1, finite, () if ends_draft is None else ends_draft(q1, vocab)

        look_sharded = over_vocabulary(
            look, (AT_ROWS, ROWS, ROWS, ROWS), (AT_ROWS, AT_ROWS, ROWS, ROWS)
        )
        draw_sharded = over_vocabulary(lambda vocab, q, u: draw(q, u, vocab), (AT_ROWS, ROWS), ROWS)

        def put(buffer, value, i):
            return jax.lax.dynamic_update_slice_in_dim(buffer, value[:, None], i, axis=1)

        def drawn(so_far: _SoFar, logits_BV, cache) -> _SoFar:
            """Draws the next token from what a pass gave."""
            i, logits_BV = so_far.passes, pad_vocabulary(logits_BV)
            q, q1, finite, ends = look_sharded(
                logits_BV, request.temperature, request.truncation, ends_draft
            )
            u = jax.lax.dynamic_slice_in_dim(uniforms, i, 1, axis=1)[:, 0]
            token = draw_sharded(q, u)
            active = so_far.active if ends_draft is None else so_far.active & ~ends
            return _SoFar(
                passes=i + 1,
                cache=cache,
                newest=token,
                tokens=put(so_far.tokens, token, i),
                q=put(so_far.q, q, i),
                q1=put(so_far.q1, q1, i),
                active=active,
                length=so_far.length + active,
                valid=so_far.valid & finite,
            )

        def step(so_far):
            position = (request.position + so_far.passes)[:, None]
            logits, cache = self.model.apply(params, so_far.newest[:, None], position, so_far.cache)
            return drawn(so_far, logits[:, 0], cache)

        def unfinished(so_far):
            going = so_far.passes < passes
            return going if ends_draft is None else going & jnp.any(so_far.active)

        uniforms = jnp.pad(request.uniforms, ((0, 0), (0, passes - size)))  # any, for no token
        shape = batch, passes, self.model.vocab_size
        buffer = jnp.zeros_like(pad_vocabulary(jnp.zeros(shape, jnp.float32)))
        so_far = _SoFar(
            passes=jnp.int32(0),
            cache=state,
            newest=request.last,
            tokens=jnp.zeros((batch, passes), jnp.int32),
            q=buffer,
            q1=buffer,
            active=jnp.ones((batch,), bool),
            length=jnp.zeros((batch,), jnp.int32),
            valid=jnp.ones((batch,), bool),
        )
        if not bonus or self.rereads:
            so_far = drawn(so_far, *self._first(params, state, request))
        so_far = jax.lax.while_loop(unfinished, step, so_far)
        # At the bonus position a token is drawn that is none of the draft's.
        tokens, length = so_far.tokens[:, :size], jnp.minimum(so_far.length, size)
        # A row that ended early took one pass more than it has tokens: the one that ended it.
        calls = length + (length < size) if not bonus else length + 1
        draft = Draft(tokens, Dense(so_far.q, so_far.q1), length, {"drafter": calls}, so_far.valid)
        return draft, so_far.cache

    def _first(self, params, cache, request: Request):
        """Returns the logits after `last`, [B, V], and the cache.

        Without the bonus position the last token of a fully accepted block is not in the cache: its
        write rides with this pass.
        """
        # At position 0 there is no token before `last`; what stands behind it is overwritten next.
        start = jnp.maximum(request.position - 1, 0)
        tokens = jnp.stack(
            [jnp.where(request.position > 0, request.previous, request.last), request.last], axis=1
        )
        positions = jnp.stack([start, start + 1], axis=1)
        logits, cache = self.model.apply(params, tokens, positions, cache)
        index = (request.position - start)[:, None, None]
        return jnp.take_along_axis(logits, index, axis=1)[:, 0], cache
