"""Lookup joined with a model: what is found is drafted, and where nothing is, a model drafts.

As with a lookup alone every token is looked up anew, from its own prefix: q is one-hot where
something is found and the model's where not, a function of the prefix that does not hang on where a
block began.

The model does not read what is drafted without it, so its cache lags behind the text. A row that
asks it has it read first what it has not seen, a chunk at a time.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.decode.drafters.interface import AT_ROWS, ROWS, Dense, Draft, check_vocabulary
from speccascade.decode.drafters.lookup import LookupDrafter, look_up
from speccascade.decode.drafters.model import ModelDrafter
from speccascade.models.interface import Model
from speccascade.sampling import confidence, distribution, draw
from speccascade.sharding.active import over_vocabulary, pad_vocabulary


class Lagging(NamedTuple):
    """What the model has read; positions are its own.

    Attributes:
      cache: the model's.
      seen: int32 [B], the first position that is not in the cache, or no longer as it was.
      first: int32 [B], the token with which decoding began, which need not be of the text.
      first_position: int32 [B], where it stands.
    """

    cache: Any
    seen: jax.Array
    first: jax.Array
    first_position: jax.Array


class _Block(NamedTuple):
    """A block in the making.

    Attributes:
      text: int32 [B, L], with what is drafted so far.
      read: what the model has read.
      logits: float32 [B, V], the model's behind the text, of the rows that ask it.
      calls: int32 [B], passes of the model that a row asked for.
      valid: bool [B].
    """

    text: jax.Array
    read: Lagging
    logits: jax.Array
    calls: jax.Array
    valid: jax.Array


@dataclasses.dataclass(frozen=True)
class LookupOrModelDrafter:
    """Drafts what is found in the row's own text, else what a model samples.

    Its parameters are the model's.

    Attributes:
      lookup: how is looked up.
      model: the model.
    """

    lookup: LookupDrafter
    model: Model

    roles = ("drafter",)

    def check(self, expert, size, rules, drafting):
        """Raises UserError for what a lookup cannot do, or a model; see `Drafter.check`."""
        self.lookup.check(expert, size, rules, drafting)
        check_vocabulary(self.model, expert)

    def placement(self, layout):
        """Returns how the model lies on a mesh."""
        return layout.of("drafter", self.model)

    def param_shardings(self, placement):
        """Returns those of the model's parameters."""
        return placement.params(self.model)

    def state_shardings(self, placement, state):
        """Returns those of the model's cache, and of what goes by row."""
        cache = ModelDrafter(self.model).state_shardings(placement, state.cache)
        return Lagging(cache, *placement.shardings(P("batch"), tuple(state[1:])))

    def uniforms(self, size):
        """Takes one per token, though what was found needs none."""
        return size

    def prefill(self, params, prompt, length, slots, overhang):
        """Returns what the model has read of the prompts."""
        chunk = overhang + 1
        cache = self.model.init_cache(prompt.shape[0], slots + chunk, overhang + chunk)
        read = self.model.prefill(params, prompt, length, cache)
        return Lagging(read.cache, read.position, read.last, read.position)

    def draft(self, params, state, request, ends_draft, bonus):
        """Drafts N tokens; the model takes no pass where all is found. See `Drafter.draft`."""
        rows, size = jnp.arange(request.length.shape[0]), request.size
        none = jnp.zeros_like(request.length)
        read = state._replace(seen=jnp.minimum(state.seen, request.position))
        logits = jnp.zeros((len(rows), self.model.vocab_size))
        block = _Block(request.text, read, logits, none, none == 0)
        draws = over_vocabulary(lambda vocab, q, u: draw(q, u, vocab), (AT_ROWS, ROWS), ROWS)

        def position(i, block, width):
            length = request.length + i
            sizes = self.lookup.max_ngram, self.lookup.min_ngram
            token, found = look_up(block.text, length, *sizes)
            block = self._read(params, request, block, i, ~found, width)
            q, q1, finite = _distributions(request, block.logits)
            at = found[:, None] & (jnp.arange(q.shape[-1]) == token[:, None])
            q, q1 = (jnp.where(found[:, None], at.astype(x.dtype), x) for x in (q, q1))
            u = jnp.take(request.uniforms, jnp.minimum(i, size - 1), axis=1)
            token = jnp.where(found, token, draws(q, u))
            text = block.text.at[rows, length].set(token)
            return block._replace(text=text, valid=block.valid & (found | finite)), (token, q, q1)

        # What was found goes on being found: only at its beginning a block is far ahead of the
        # model. Behind that, rows that ask it asked it one token before.
        block, first = position(jnp.int32(0), block, size + 2)
        block, others = jax.lax.scan(
            lambda block, i: position(i, block, 1), block, jnp.arange(1, size + bonus)
        )
        tokens, q, q1 = (
            jnp.concatenate([one[:, None], jnp.moveaxis(more, 0, 1)], axis=1)
            for one, more in zip(first, others, strict=True)
        )
        length = jnp.full_like(none, size)
        made = Draft(
            tokens[:, :size], Dense(q, q1), length, {"drafter": block.calls}, block.valid
        )
        return made, block.read

    def _read(self, params, request, block: _Block, drafted, asks, width: int) -> _Block:
        """Has the model read the text, for the rows that ask, `width` tokens in a pass.

        Other rows read again what they read next anyway: their caches stay as good as they were.

        Args:
          params: the model's.
          request: for the whole block.
          block: so far.
          drafted: int32 [], how many tokens that is.
          asks: bool [B].
          width: static.
        """
        newest = request.position + drafted

        def token_at(positions):
            index = positions - request.position[:, None] + request.length[:, None] - 1
            index = jnp.clip(index, 0, block.text.shape[1] - 1)
            text = jnp.take_along_axis(block.text, index, axis=1)
            begins = positions == block.read.first_position[:, None]
            return jnp.where(begins, block.read.first[:, None], text)

        def behind(block):
            return jnp.any(asks & (block.read.seen <= newest))

        def one_pass(block):
            seen = block.read.seen
            positions = seen[:, None] + jnp.arange(width)
            logits, cache = self.model.apply(
                params, token_at(positions), positions, block.read.cache
            )
            wants = asks & (seen <= newest)
            index = newest - seen
            own = jnp.take_along_axis(logits, jnp.clip(index, 0, width - 1)[:, None, None], axis=1)
            read = block.read._replace(
                cache=cache, seen=jnp.where(wants, jnp.minimum(seen + width, newest + 1), seen)
            )
            return block._replace(
                read=read,
                logits=jnp.where((wants & (index < width))[:, None], own[:, 0], block.logits),
                calls=block.calls + wants,
            )

        return jax.lax.while_loop(behind, one_pass, block)


def _distributions(request, logits):
    """Returns q and q1, and whether the logits are finite."""

    def look(vocab, logits, temperature, truncation):
        q = distribution(logits, temperature, truncation, vocab)
        return q, confidence(logits, vocab), jnp.isfinite(vocab.max(logits)[..., 0])

    run = over_vocabulary(look, (AT_ROWS, ROWS, ROWS), (AT_ROWS, AT_ROWS, ROWS))
    return run(pad_vocabulary(logits), request.temperature, request.truncation)
