"""T5 (Raffel et al. 2020), v1.0, v1.1 and Flan: an encoder-decoder in Flax Linen.

The encoder reads the prompt once, and what cross-attention needs of it is kept in the cache: its
keys and values in every decoder layer. The decoder writes the answer behind a start token, which
stands at position 0. Layers are unrolled, weights stored `[out, in]` and axis letters used as in
`transformer.py`; every head has its own keys and values, so that Q is K.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from speccascade.models import axes
from speccascade.models.int8 import matrix
from speccascade.models.interface import Dropout, Params, Prefilled
from speccascade.models.t5_config import T5Config
from speccascade.models.transformer import (
    Head,
    LayerCache,
    Linear,
    RMSNorm,
    _embed,
    _write,
    head_logits,
)
from speccascade.models.transformer_config import ACTIVATIONS
from speccascade.sharding.active import constrain

UNSEEN = -1e30


class Cache(NamedTuple):
    """What a decoder keeps of the prompt and of the tokens that it has read.

    Attributes:
      layers: keys and values of each layer's tokens; slots are decoder positions.
      cross: keys and values of the prompt, layer by layer; slots are the prompt's positions.
      prompt_length: int32 [B], the prompt's own slots; the others are padding.
    """

    layers: tuple[LayerCache, ...]
    cross: tuple[LayerCache, ...]
    prompt_length: jax.Array


@functools.cache
def bucket_table(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance in one direction, int32 [max_distance + 1].

    Half of the buckets are for one distance each, the others for ranges that grow with it. Farther
    distances than `max_distance` share its bucket. Rounding is that of float32, as trained.
    """
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)
    far = np.minimum(exact + ratio.astype(np.int32), num_buckets - 1)
    return np.where(distance < exact, distance, far).astype(np.int32)


class RelativePositions(nn.Module):
    """A learned bias of attention scores by head and distance, which all layers share.

    Attributes:
      config: the model's.
      bidirectional: whether keys behind their query have buckets of their own; else none is seen.
    """

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(self, query_BS, key_BL):
        """Maps positions (B may be 1) to a float32 bias `[B, K, S, L]`."""
        c = self.config
        init = nn.initializers.normal(c.d_model**-0.5)
        shape = (c.num_buckets, c.num_heads)
        table = self.param("embedding", init, shape, c.param_dtype).astype(jnp.float32)
        ahead_BSL = query_BS[:, :, None] - key_BL[:, None, :]
        if self.bidirectional:
            half = c.num_buckets // 2
            buckets = bucket_table(half, c.max_distance)
            buckets = np.concatenate([half + buckets[:0:-1], buckets])
            index = jnp.clip(ahead_BSL, -c.max_distance, c.max_distance) + c.max_distance
        else:
            buckets = bucket_table(c.num_buckets, c.max_distance)
            index = jnp.clip(ahead_BSL, 0, c.max_distance)
        return jnp.moveaxis(table[buckets].T[:, index], 0, 1)


class Attention(nn.Module):
    """Attention whose scores are not scaled: queries are small from the start instead."""

    config: T5Config

    def setup(self):
        """Makes the four products."""
        c = self.config
        self.query, self.key, self.value = (Linear(c.num_heads * c.head_dim, c) for _ in range(3))
        self.output = Linear(c.d_model, c)

    def _heads(self, y):
        y = y.reshape(*y.shape[:2], self.config.num_heads, self.config.head_dim)
        return constrain(y, "batch", None, "heads", None)

    def keys_and_values(self, x_BLD):
        """Returns keys and values, `[B, L, K, H]` each."""
        return self._heads(self.key(x_BLD)), self._heads(self.value(x_BLD))

    def __call__(self, x_BSD, seen: LayerCache, bias):
        """Mixes `seen` (slots L) under a float32 bias that `[B, K, S, L]` fits; `[B, S, D]`."""
        query_BSKH = self._heads(self.query(x_BSD))
        keys, values = seen
        scores = jnp.einsum("bskh,bklh->bksl", query_BSKH, keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(values.dtype)
        mixed = jnp.einsum("bksl,bklh->bskh", weights, values, preferred_element_type=jnp.float32)
        y = self.output(mixed.reshape(*x_BSD.shape[:2], -1).astype(x_BSD.dtype))
        return constrain(y, "batch", None, None)


class MLP(nn.Module):
    """The feed-forward layer, gated (Shazeer 2020) or plain."""

    config: T5Config

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to `[..., D]`."""
        c = self.config
        activation = ACTIVATIONS[c.activation]
        y = Linear(c.d_ff, c, name="up")(x)
        y = activation(Linear(c.d_ff, c, name="gate")(x)) * y if c.gated_mlp else activation(y)
        y = Linear(c.d_model, c, name="down")(constrain(y, "batch", None, "mlp"))
        return constrain(y, "batch", None, None)


def _slots(keys_BLKH: jax.Array, values_BLKH: jax.Array) -> LayerCache:
    return LayerCache(keys_BLKH.swapaxes(1, 2), values_BLKH.swapaxes(1, 2))


def _thinned(rate: float) -> nn.Dropout:
    """Returns the layer that leaves units of `[B, S, D]` out; at rate 0 it changes nothing."""
    return nn.Dropout(rate, broadcast_dims=(-2,), deterministic=False)


class Encoder(nn.Module):
    """Reads a prompt, every token seeing all of it."""

    config: T5Config
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x_BTD, length_B):
        """Maps embeddings `[B, T, D]` of right-padded prompts to `[B, T, D]`."""
        c, thinned = self.config, _thinned(self.dropout)
        index = jnp.arange(x_BTD.shape[1])
        bias = RelativePositions(c, bidirectional=True, name="relative")(index[None], index[None])
        bias = jnp.where(index < length_B[:, None, None, None], bias, UNSEEN)
        x = thinned(x_BTD)
        for i in range(c.num_layers):
            attention = Attention(c, name=f"attention_{i}")
            y = RMSNorm(c, name=f"attention_norm_{i}")(x)
            x = x + thinned(attention(y, _slots(*attention.keys_and_values(y)), bias))
            x = x + thinned(MLP(c, name=f"mlp_{i}")(RMSNorm(c, name=f"mlp_norm_{i}")(x)))
        return thinned(RMSNorm(c, name="final_norm")(x))


class Decoder(nn.Module):
    """Writes an answer, each token seeing those before it and all of the prompt."""

    config: T5Config
    dropout: float = 0.0

    def setup(self):
        """Makes the layers; `read_prompt` and `__call__` share their cross-attention."""
        c, layers = self.config, range(self.config.num_decoder_layers)
        self.thinned = _thinned(self.dropout)
        self.relative = RelativePositions(c, bidirectional=False)
        self.attention_norm = [RMSNorm(c) for _ in layers]
        self.attention = [Attention(c) for _ in layers]
        self.cross_attention_norm = [RMSNorm(c) for _ in layers]
        self.cross_attention = [Attention(c) for _ in layers]
        self.mlp_norm = [RMSNorm(c) for _ in layers]
        self.mlp = [MLP(c) for _ in layers]
        self.final_norm = RMSNorm(c)

    def read_prompt(self, encoded_BTD) -> tuple[LayerCache, ...]:
        """Returns what cross-attention needs of an encoded prompt, layer by layer."""
        return tuple(_slots(*a.keys_and_values(encoded_BTD)) for a in self.cross_attention)

    def __call__(self, x_BSD, positions_BS, cache: Cache):
        """Returns `[B, S, D]` and the layers' new caches; a cache without layers needs none."""
        cached = len(cache.layers) > 0
        start_B = positions_BS[:, 0]
        slot_BL = jnp.arange(cache.layers[0].keys_BKLH.shape[2])[None] if cached else positions_BS
        seen_BSL = slot_BL[:, None, :] <= positions_BS[:, :, None]
        bias = jnp.where(seen_BSL[:, None], self.relative(positions_BS, slot_BL), UNSEEN)
        prompt = jnp.arange(cache.cross[0].keys_BKLH.shape[2])
        inside = prompt < cache.prompt_length[:, None, None, None]
        cross_bias = jnp.where(inside, 0.0, UNSEEN)
        x, layers = self.thinned(x_BSD), []
        for i, attention in enumerate(self.attention):
            y = self.attention_norm[i](x)
            key, value = attention.keys_and_values(y)
            if cached:
                keys, values = cache.layers[i]
                layer = LayerCache(_write(keys, key, start_B), _write(values, value, start_B))
                layers.append(layer)
            else:
                layer = _slots(key, value)
            x = x + self.thinned(attention(y, layer, bias))
            y = self.cross_attention_norm[i](x)
            x = x + self.thinned(self.cross_attention[i](y, cache.cross[i], cross_bias))
            x = x + self.thinned(self.mlp[i](self.mlp_norm[i](x)))
        return self.thinned(self.final_norm(x)), tuple(layers)


class T5(nn.Module):
    """The whole network; above a `dropout` of 0 it needs random numbers of that name."""

    config: T5Config
    dropout: float = 0.0

    def setup(self):
        """Makes the embedding, which both stacks share, the stacks and the head."""
        c = self.config
        shape = (c.vocab_size, c.d_model)
        self.embedding = matrix(self, "embedding", nn.initializers.normal(1.0), shape, c)
        self.encoder, self.decoder = Encoder(c, self.dropout), Decoder(c, self.dropout)
        if not c.tie_embeddings:
            self.head = Head(c)

    def _embed(self, tokens):
        return constrain(_embed(self.embedding, tokens, self.config.dtype), "batch", None, None)

    def _scaled(self, x):
        """Returns what the head reads."""
        c = self.config
        return x * jnp.asarray(c.d_model**-0.5, x.dtype) if c.tie_embeddings else x

    def _logits(self, x):
        tied = self.config.tie_embeddings
        logits = head_logits(self.embedding, x) if tied else self.head(x)
        return constrain(logits, "batch", None, "vocab")

    def read_prompt(self, tokens_BT, length_B) -> tuple[LayerCache, ...]:
        """Returns what the decoder needs of right-padded prompts, layer by layer."""
        return self.decoder.read_prompt(self.encoder(self._embed(tokens_BT), length_B))

    def decode(self, tokens_BS, positions_BS, cache: Cache):
        """Returns float32 logits `[B, S, V]` and the layers' new caches."""
        x, layers = self.decoder(self._embed(tokens_BS), positions_BS, cache)
        return self._logits(self._scaled(x)), layers

    def __call__(self, tokens_BT, prompt_length_B):
        """Returns float32 logits `[B, T, V]` of prompts and answers; see `Model.forward`."""
        return self._logits(self.features(tokens_BT, prompt_length_B))

    def answer_logits(self, prompt_BT, prompt_length_B, answer_BS):
        """Returns float32 logits `[B, S, V]` of answers; see `Model.answer_logits`."""
        cross = self.read_prompt(prompt_BT, prompt_length_B)
        start = jnp.full_like(answer_BS[:, :1], self.config.decoder_start_id)
        before = jnp.concatenate([start, answer_BS[:, :-1]], axis=1)
        index = jnp.broadcast_to(jnp.arange(answer_BS.shape[1]), answer_BS.shape)
        return self.decode(before, index, Cache((), cross, prompt_length_B))[0]

    def features(self, tokens_BT, prompt_length_B):
        """Returns what the head reads of them, `[B, T, D]`; zeros inside the prompt."""
        cross = self.read_prompt(tokens_BT, prompt_length_B)
        index = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        shift = prompt_length_B[:, None] - 1  # the start token stands for the prompt's last
        answer = jnp.take_along_axis(
            tokens_BT, jnp.minimum(index + shift, tokens_BT.shape[1] - 1), axis=1
        )
        answer = answer.at[:, 0].set(self.config.decoder_start_id)
        x, _ = self.decoder(self._embed(answer), index, Cache((), cross, prompt_length_B))
        x = jnp.take_along_axis(x, jnp.maximum(index - shift, 0)[..., None], axis=1)
        return self._scaled(jnp.where((index >= shift)[..., None], x, 0))


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
    """A `Model` (see `interface.py`) made of one `T5`.

    Positions are those of the decoder: the start token stands at 0 whatever the prompt's length.
    """

    config: T5Config

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    def init(self, key: jax.Array) -> Params:
        """Returns freshly initialised parameters."""
        params = T5(self.config).init(key, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))

        def small_queries(path, x):
            is_query = any(getattr(part, "key", None) == "query" for part in path)
            is_query &= x.dtype != jnp.int8  # its scale alone is made smaller
            return x * jnp.asarray(self.config.head_dim**-0.5, x.dtype) if is_query else x

        return jax.tree_util.tree_map_with_path(small_queries, params["params"])

    def forward(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Scores whole sequences; see `Model.forward`. Logits inside the prompt are zeros."""
        return T5(self.config).apply({"params": params}, tokens, prompt_length)

    def answer_logits(
        self,
        params: Params,
        prompt: jax.Array,
        prompt_length: jax.Array,
        answer: jax.Array,
        dropout: Dropout | None = None,
    ) -> jax.Array:
        """Scores answers alone; see `Model.answer_logits`."""
        variables = {"params": params}
        rate, rngs = (0.0, None) if dropout is None else (dropout.rate, {"dropout": dropout.key})
        return T5(self.config, rate).apply(
            variables, prompt, prompt_length, answer, method="answer_logits", rngs=rngs
        )

    def features(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Returns what the head reads in `forward`; see `Model.features`."""
        variables = {"params": params}
        return T5(self.config).apply(variables, tokens, prompt_length, method="features")

    def head_logits(
        self, params: Params, features: jax.Array, ids: jax.Array | None = None
    ) -> jax.Array:
        """Scores tokens; see `Model.head_logits`."""
        tied = self.config.tie_embeddings
        weight = params["embedding"] if tied else params["head"]["weight"]
        return head_logits(weight, features, ids)

    def init_cache(self, batch: int, slots: int) -> Cache:
        """Returns an empty cache, as after a prompt without tokens."""
        c = self.config
        shape = (batch, c.num_heads, slots, c.head_dim)

        def layers():  # each its own buffer: the decode loop donates them
            return tuple(
                LayerCache(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype))
                for _ in range(c.num_decoder_layers)
            )

        return Cache(layers(), layers(), jnp.zeros((batch,), jnp.int32))

    def prefill(
        self, params: Params, tokens: jax.Array, lengths: jax.Array, cache: Cache
    ) -> Prefilled:
        """Runs the encoder over right-padded prompts; see `Model.prefill`.

        The prompts take none of the decoder's slots: the new cache has `T - 1` fewer, so that no
        step reads slots which nothing can reach.
        """
        variables = {"params": params}
        cross = T5(self.config).apply(variables, tokens, lengths, method="read_prompt")
        unused = tokens.shape[1] - 1
        layers = jax.tree.map(lambda x: x[:, :, : x.shape[2] - unused], cache.layers)
        lengths = jnp.asarray(lengths, jnp.int32)
        return Prefilled(
            Cache(layers, cross, lengths),
            jnp.full_like(lengths, self.config.decoder_start_id),
            jnp.zeros_like(lengths),
        )

    def apply(
        self, params: Params, tokens: jax.Array, positions: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Scores the next tokens of every row; see `Model.apply`."""
        variables = {"params": params}
        logits, layers = T5(self.config).apply(variables, tokens, positions, cache, method="decode")
        return logits, cache._replace(layers=layers)

    def axis_sizes(self) -> dict[str, int]:
        """Returns what must not be cut within a unit; see `Model.axis_sizes`."""
        return {"heads": self.config.num_heads, "kv_heads": self.config.num_heads}

    def param_axes(self, key: str) -> P:
        """Returns the logical names of a parameter's axes; see `Model.param_axes`."""
        return axes.param_axes(key)

    def cache_axes(self, cache: Cache) -> Cache:
        """Returns the logical names of a cache's axes; see `Model.cache_axes`."""
        layers, cross = jax.tree.map(lambda _: axes.CACHE, (cache.layers, cache.cross))
        return Cache(layers, cross, P("batch"))
