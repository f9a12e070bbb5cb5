"""A drafter and an expert of any size that agree as often as asked, without training.

Both are real models with random weights, and cost what they cost. But on top of its own logits
each gets a next token, a pseudo-random function of the newest token and its position: the drafter's
is the expert's with the probability asked for, independently at each position.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from speccascade import models
from speccascade.models.interface import Cache, Model, Params, Prefilled

# Where the models agree both are sure of their token. Where they do not, the drafter is half sure
# of its own, so that the rules that read its confidence defer there.
_SURE = 50.0


@dataclasses.dataclass(frozen=True)
class Agreeing:
    """A `Model` (see `models/interface.py`) that agrees with all others of its kind.

    Its parameters are `{"model": ..., "agreement": float32 []}`: how often it agrees is traced.
    """

    model: Model

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.model.vocab_size

    def init(self, key: jax.Array) -> Params:
        """Returns freshly initialised parameters, of full agreement."""
        return {"model": self.model.init(key), "agreement": jnp.float32(1)}

    def forward(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Scores whole sequences; see `Model.forward`."""
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        logits = self.model.forward(params["model"], tokens, prompt_length)
        return steer(logits, tokens, positions, params["agreement"])

    def init_cache(self, batch: int, slots: int, rollback: int | None = None) -> Cache:
        """Returns the model's empty cache."""
        return self.model.init_cache(batch, slots, rollback)

    def prefill(
        self, params: Params, tokens: jax.Array, lengths: jax.Array, cache: Cache
    ) -> Prefilled:
        """Reads right-padded prompts; see `Model.prefill`."""
        return self.model.prefill(params["model"], tokens, lengths, cache)

    def apply(
        self, params: Params, tokens: jax.Array, positions: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Scores the next tokens of every row; see `Model.apply`."""
        logits, cache = self.model.apply(params["model"], tokens, positions, cache)
        return steer(logits, tokens, positions, params["agreement"]), cache

    def axis_sizes(self) -> Mapping[str, int]:
        """Returns the model's own; see `Model.axis_sizes`."""
        return self.model.axis_sizes()

    def param_axes(self, key: str) -> PartitionSpec:
        """Returns the model's own, and none for the agreement; see `Model.param_axes`."""
        own = key.removeprefix("model/")
        return PartitionSpec() if own == key else self.model.param_axes(own)

    def cache_axes(self, cache: Cache) -> Any:
        """Returns the model's own; see `Model.cache_axes`."""
        return self.model.cache_axes(cache)


def steer(logits: jax.Array, tokens: jax.Array, positions: jax.Array, agreement) -> jax.Array:
    """Adds to the logits `[B, S, V]` what makes the next tokens the ones asked for."""
    vocab_size = logits.shape[-1]
    noise = _mix(tokens.astype(jnp.uint32) * jnp.uint32(0x9E3779B9) + _mix(positions + 1))
    choice = (noise % vocab_size).astype(jnp.int32)
    agrees = (_mix(noise) >> 8).astype(jnp.float32) * 2.0**-24 < agreement
    choice = jnp.where(agrees, choice, (choice + 1) % vocab_size)
    weight = jnp.where(agrees, _SURE, np.log(vocab_size))
    chosen = jnp.arange(vocab_size) == choice[..., None]
    return logits + jnp.where(chosen, weight[..., None], 0.0)


def next_token(token: int, position: int, agreement: float, vocab_size: int) -> tuple[int, float]:
    """Returns the id whose logit is raised behind one token, and by how much: `steer` by hand."""
    mask = 2**32 - 1

    def mix(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
        x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
        return x ^ (x >> 16)

    noise = mix((token * 0x9E3779B9 + mix(position + 1)) & mask)
    choice = noise % vocab_size
    if (mix(noise) >> 8) * 2.0**-24 < float(np.float32(agreement)):
        return choice, _SURE
    return (choice + 1) % vocab_size, float(np.log(vocab_size))


def _mix(x: jax.Array) -> jax.Array:
    """A hash of uint32 (the constants are those of C. Wellons' lowbias32)."""
    x = x.astype(jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def build(config: Mapping[str, Any], seed: int) -> tuple[Agreeing, Params]:
    """Returns a model, from the description that `models.build` takes, and random parameters."""
    model = Agreeing(models.build(config))
    return model, _init(model, jax.random.key(seed))


_init = jax.jit(Agreeing.init, static_argnums=0)  # of equal models one program
