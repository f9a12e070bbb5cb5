"""The cost of one model pass by the number of tokens in it, inside a loop as when decoding."""

import time
from functools import partial

import jax
import jax.numpy as jnp

from speccascade.benchmark.clock import Timed
from speccascade.models.interface import Model, Params


def step(
    model: Model, params: Params, batch: int, tokens: int, position: int, slots: int, repeats: int
) -> Timed:
    """Returns the call that runs `repeats` passes in one compiled loop.

    Args:
      model: the model.
      params: its parameters.
      batch: B, rows of the batch.
      tokens: S, tokens of every row in one pass.
      position: where the first of them stands.
      slots: L of the cache.
      repeats: passes per call; the call's time over this is that of one.
    """
    start = min(position, slots - tokens - 1)

    def prepare():
        logits = jnp.zeros((batch, tokens, model.vocab_size), jnp.float32)
        return model.init_cache(batch, slots, tokens), logits

    return Timed(
        warm=lambda: _repeat(model, tokens, 1, params, start, prepare()),
        prepare=prepare,
        run=lambda carry: _repeat(model, tokens, repeats, params, start, carry),
    )


def seconds(model: Model, params: Params, **shapes: int) -> float:
    """Returns about how long a pass takes, its compilation left out; shapes as for `step`."""
    call = step(model, params, **shapes, repeats=2)
    jax.block_until_ready(call.warm())
    argument = jax.block_until_ready(call.prepare())
    began = time.perf_counter()
    jax.block_until_ready(call.run(argument))
    return (time.perf_counter() - began) / 2


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _repeat(model: Model, tokens: int, repeats, params: Params, start, carry):
    def once(i, carry):
        cache, logits = carry
        # Hangs on the loop and on the last pass, so that no part of a pass can be done only once.
        newest = jnp.argmax(logits[:, :, :8], axis=-1).astype(jnp.int32) + i
        positions = jnp.broadcast_to(start + i % 2 + jnp.arange(tokens), newest.shape)
        logits, cache = model.apply(params, newest, positions, cache)
        return cache, logits

    return jax.lax.fori_loop(0, repeats, once, carry)
