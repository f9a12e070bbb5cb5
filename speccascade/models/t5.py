"""T5 (Raffel et al. 2020), v1.0, v1.1 and Flan: an encoder-decoder in Flax Linen.

The encoder reads the prompt once, and what cross-attention needs of it is kept in the cache: its
keys and values in every decoder layer. The decoder writes the answer behind a start token, which
stands at position 0. Layers are unrolled as in `transformer.py`, and axis letters are those of
`interface.py`; every head has its own keys and values, so that Q is K.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.models import axes
from speccascade.models.attention import CHUNK, Bias, attend, shared
from speccascade.models.int8 import matrix
from speccascade.models.interface import Dropout, Params, Prefilled
from speccascade.models.kv_cache import LayerCache, Slots, slots_of
from speccascade.models.layers import Head, Linear, RMSNorm, embed, head_logits
from speccascade.models.t5_config import T5Config
from speccascade.models.t5_positions import (
    RelativePositions,
    answer_bias,
    cross_bias,
    prompt_bias,
)
from speccascade.models.transformer_config import ACTIVATIONS
from speccascade.sharding.active import constrain


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


class Attention(nn.Module):
    """Attention whose scores are not scaled: queries are small from the start instead."""

    config: T5Config
    chunk: int

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

    def __call__(self, x_BSD, positions_BS, seen: Slots, bias: Bias):
        """Mixes what is seen; `[B, S, D]`."""
        query = self._heads(self.query(x_BSD))
        y = self.output(attend(query, positions_BS, seen, bias, chunk=self.chunk))
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


def _thinned(rate: float) -> nn.Dropout:
    """Returns the layer that leaves units of `[B, S, D]` out; at rate 0 it changes nothing."""
    return nn.Dropout(rate, broadcast_dims=(-2,), deterministic=False)


class Encoder(nn.Module):
    """Reads a prompt, every token seeing all of it."""

    config: T5Config
    dropout: float = 0.0
    chunk: int = CHUNK
    remat: bool = False

    @nn.compact
    def __call__(self, x_BTD, length_B):
        """Maps embeddings `[B, T, D]` of right-padded prompts to `[B, T, D]`."""
        c, thinned = self.config, _thinned(self.dropout)
        index = jnp.arange(x_BTD.shape[1])[None]
        relative = RelativePositions(c, bidirectional=True, name="relative")()
        bias = prompt_bias(relative, length_B, x_BTD.shape[1])
        bias = shared(bias, index, index, self.chunk)

        def layer(i):
            def run(_, x):
                # What is computed again has to be made inside.
                thin = _thinned(self.dropout) if self.remat else thinned
                attention = Attention(c, self.chunk, name=f"attention_{i}")
                y = RMSNorm(c, name=f"attention_norm_{i}")(x)
                keys, values = attention.keys_and_values(y)
                seen = slots_of(keys, values, index)
                x = x + thin(attention(y, index, seen, bias))
                return x + thin(MLP(c, name=f"mlp_{i}")(RMSNorm(c, name=f"mlp_norm_{i}")(x)))

            return nn.remat(run) if self.remat else run

        x = thinned(x_BTD)
        for i in range(c.num_layers):
            x = layer(i)(self, x)
        return thinned(RMSNorm(c, name="final_norm")(x))


class Decoder(nn.Module):
    """Writes an answer, each token seeing those before it and all of the prompt."""

    config: T5Config
    dropout: float = 0.0
    chunk: int = CHUNK
    remat: bool = False

    def setup(self):
        """Makes the layers; `read_prompt` and `__call__` share their cross-attention."""
        c, layers = self.config, range(self.config.num_decoder_layers)
        self.thinned = _thinned(self.dropout)
        self.relative = RelativePositions(c, bidirectional=False)
        self.attention_norm = [RMSNorm(c) for _ in layers]
        self.attention = [Attention(c, self.chunk) for _ in layers]
        self.cross_attention_norm = [RMSNorm(c) for _ in layers]
        self.cross_attention = [Attention(c, self.chunk) for _ in layers]
        self.mlp_norm = [RMSNorm(c) for _ in layers]
        self.mlp = [MLP(c) for _ in layers]
        self.final_norm = RMSNorm(c)

    def read_prompt(self, encoded_BTD) -> tuple[LayerCache, ...]:
        """Returns what cross-attention needs of an encoded prompt, layer by layer."""
        index = jnp.arange(encoded_BTD.shape[1])
        read = (a.keys_and_values(encoded_BTD) for a in self.cross_attention)
        return tuple(LayerCache(*slots_of(k, v, index)[:2]) for k, v in read)

    def __call__(self, x_BSD, positions_BS, cache: Cache):
        """Returns `[B, S, D]` and the layers' new caches; a cache without layers needs none."""
        slots, prompt = (
            jnp.arange(layers[0].keys_BKLH.shape[2])[None] if layers else positions_BS
            for layers in (cache.layers, cache.cross)
        )
        bias = shared(answer_bias(self.relative()), positions_BS, slots, self.chunk)
        bias_of_prompt = cross_bias(cache.prompt_length)

        def layer(i):
            def run(self, x):
                attention, kept = self.attention[i], ()
                y = self.attention_norm[i](x)
                key, value = attention.keys_and_values(y)
                if cache.layers:
                    kept, seen = cache.layers[i].extend(key, value, positions_BS)
                else:
                    seen = slots_of(key, value, positions_BS)
                x = x + self.thinned(attention(y, positions_BS, seen, bias))
                y = self.cross_attention_norm[i](x)
                keys, values = cache.cross[i]
                seen = Slots(keys, values, prompt)
                y = self.cross_attention[i](y, positions_BS, seen, bias_of_prompt)
                x = x + self.thinned(y)
                return x + self.thinned(self.mlp[i](self.mlp_norm[i](x))), kept

            return nn.remat(run) if self.remat else run

        x, layers = self.thinned(x_BSD), []
        for i in range(len(self.attention)):
            x, kept = layer(i)(self, x)
            layers.append(kept)
        return self.thinned(self.final_norm(x)), tuple(layers) if cache.layers else ()


class T5(nn.Module):
    """The whole network; above a `dropout` of 0 it needs random numbers of that name."""

    config: T5Config
    dropout: float = 0.0
    chunk: int = CHUNK
    remat: bool = False

    def setup(self):
        """Makes the embedding, which both stacks share, the stacks and the head."""
        c = self.config
        shape = (c.vocab_size, c.d_model)
        self.embedding = matrix(self, "embedding", nn.initializers.normal(1.0), shape, c)
        self.encoder = Encoder(c, self.dropout, self.chunk, self.remat)
        self.decoder = Decoder(c, self.dropout, self.chunk, self.remat)
        if not c.tie_embeddings:
            self.head = Head(c)

    def _embed(self, tokens):
        return constrain(embed(self.embedding, tokens, self.config.dtype), "batch", None, None)

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

    Attributes:
      config: what it is made of.
      chunk: tokens of a prompt whose attention scores are made at once, at most.
      remat: whether gradients keep of a layer only what it read, and compute it again.
    """

    config: T5Config
    chunk: int = CHUNK
    remat: bool = False

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    def _module(self, dropout: float = 0.0) -> Any:  # a T5; what `apply` gives hangs on its method
        return T5(self.config, dropout, self.chunk, self.remat)

    def init(self, key: jax.Array) -> Params:
        """Returns freshly initialised parameters."""
        params = self._module().init(key, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))

        def small_queries(path, x):
            is_query = any(getattr(part, "key", None) == "query" for part in path)
            is_query &= x.dtype != jnp.int8  # its scale alone is made smaller
            return x * jnp.asarray(self.config.head_dim**-0.5, x.dtype) if is_query else x

        return jax.tree_util.tree_map_with_path(small_queries, params["params"])

    def forward(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Scores whole sequences; see `Model.forward`. Logits inside the prompt are zeros."""
        return self._module().apply({"params": params}, tokens, prompt_length)

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
        return self._module(rate).apply(
            variables, prompt, prompt_length, answer, method="answer_logits", rngs=rngs
        )

    def features(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Returns what the head reads in `forward`; see `Model.features`."""
        variables = {"params": params}
        return self._module().apply(variables, tokens, prompt_length, method="features")

    def head_logits(
        self, params: Params, features: jax.Array, ids: jax.Array | None = None
    ) -> jax.Array:
        """Scores tokens; see `Model.head_logits`."""
        tied = self.config.tie_embeddings
        weight = params["embedding"] if tied else params["head"]["weight"]
        return head_logits(weight, features, ids)

    def init_cache(self, batch: int, slots: int, rollback: int | None = None) -> Cache:
        """Returns an empty cache, as after a prompt without tokens; no layer slides."""
        del rollback
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
        cross = self._module().apply(variables, tokens, lengths, method="read_prompt")
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
        module = self._module()
        logits, layers = module.apply(variables, tokens, positions, cache, method="decode")
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
        name: Any = P("batch")
        return Cache(layers, cross, name)
