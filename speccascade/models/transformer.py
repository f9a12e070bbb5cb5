"""A decoder-only transformer in Flax Linen, with and without a cache.

One module serves training (`forward`), prefill and block scoring (`apply`). Its layers are
unrolled: on CPU a scan over stacked weights copies every layer out before it is used.

Axis letters are those of `interface.py`.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.models import axes, rope
from speccascade.models.attention import CHUNK, attend, causal
from speccascade.models.feed_forward import feed_forward
from speccascade.models.int8 import matrix
from speccascade.models.interface import Cache, Params, Prefilled
from speccascade.models.kv_cache import LayerCache, Ring, in_tiles, slots_of
from speccascade.models.layers import Head, Linear, RMSNorm, embed, head_logits
from speccascade.models.transformer_config import TransformerConfig
from speccascade.sharding.active import constrain, ways


def cached_heads(config: TransformerConfig) -> int:
    """Returns K as it is cached: where devices outnumber it, heads are repeated, one for each."""
    return math.lcm(config.num_kv_heads, ways("heads"))


class Attention(nn.Module):
    """Grouped-query attention over a cache, or over the given tokens where there is none."""

    config: TransformerConfig
    layer: int
    chunk: int

    @nn.compact
    def __call__(self, x_BSD, positions_BS, cache: LayerCache | Ring | None, length_B=None):
        """Returns `[B, S, D]` and the updated cache (None for None); `length_B` as it takes it."""
        c = self.config
        batch, length, _ = x_BSD.shape

        def heads(name, count):
            y = Linear(count * c.head_dim, c, c.qkv_bias, name=name)(x_BSD)
            return y.reshape(batch, length, count, c.head_dim)

        query, key = heads("query", c.num_heads), heads("key", c.num_kv_heads)
        value = heads("value", c.num_kv_heads)
        kv_heads = cached_heads(c)
        if c.qk_norm:
            query = RMSNorm(c, c.norm_param_dtype, name="query_norm")(query)
            key = RMSNorm(c, c.norm_param_dtype, name="key_norm")(key)
        frequency = c.layer_frequencies(self.layer)
        query = rope.rotate(query, positions_BS, frequency)
        key = rope.rotate(key, positions_BS, frequency)
        if kv_heads != c.num_kv_heads:
            key, value = (jnp.repeat(x, kv_heads // c.num_kv_heads, axis=2) for x in (key, value))
        query, key, value = (
            constrain(x, "batch", None, "heads", None) for x in (query, key, value)
        )
        if cache is None:
            seen = slots_of(key, value, positions_BS)
        else:
            cache, seen = cache.extend(key, value, positions_BS, length_B)
        mixed = attend(
            query,
            positions_BS,
            seen,
            functools.partial(causal, window=c.layer_window(self.layer)),
            chunk=self.chunk,
            scale=(c.query_pre_attn_scalar or c.head_dim) ** -0.5,
            cap=c.attn_softcap,
        )
        y = Linear(c.d_model, c, c.output_bias, name="output")(mixed)
        return constrain(y, "batch", None, None), cache


class Transformer(nn.Module):
    """The whole network.

    Attributes:
      config: what it is made of.
      chunk: scores of more tokens than this are made chunk by chunk.
      remat: whether gradients keep of a layer only what it read, and compute it again.
    """

    config: TransformerConfig
    chunk: int = CHUNK
    remat: bool = False

    @nn.compact
    def __call__(self, tokens_BS, positions_BS, cache, scored: bool = True, length_B=None):
        """Returns float32 `[B, S, V]` logits and the updated cache (None for None).

        Unless `scored`, what the head reads, `[B, S, D]`, stands in the place of the logits. Where
        the tokens are a chunk of padded prompts, `length_B` tells how long each row's prompt is.
        """
        c = self.config
        init = nn.initializers.normal(0.02 if c.tie_embeddings else 1.0)
        embedding = matrix(self, "embedding", init, (c.vocab_size, c.d_model), c)
        x = constrain(embed(embedding, tokens_BS, c.dtype), "batch", None, None)
        if c.scale_embeddings:
            x *= jnp.asarray(c.d_model**0.5, c.dtype)

        def norm(name, x):
            return RMSNorm(c, c.norm_param_dtype, name=name)(x)

        def layer(i):
            def run(_, x):
                attention = Attention(c, i, self.chunk, name=f"attention_{i}")
                kept = None if cache is None else cache[i]
                y, kept = attention(norm(f"attention_norm_{i}", x), positions_BS, kept, length_B)
                x = x + (norm(f"post_attention_norm_{i}", y) if c.post_norms else y)
                y = feed_forward(c, i, name=f"mlp_{i}")(norm(f"mlp_norm_{i}", x))
                return x + (norm(f"post_mlp_norm_{i}", y) if c.post_norms else y), kept

            return nn.remat(run) if self.remat else run

        layers = []
        for i in range(c.num_layers):
            x, kept = layer(i)(self, x)
            layers.append(kept)
        x = norm("final_norm", x)
        if scored and c.tie_embeddings:
            x = head_logits(embedding, x, softcap=c.logit_softcap)
        elif scored:
            x = Head(c, c.logit_softcap, name="head")(x)
        if scored:
            x = constrain(x, "batch", None, "vocab")
        return x, None if cache is None else tuple(layers)


@dataclasses.dataclass(frozen=True)
class DecoderOnly:
    """A `Model` (see `interface.py`) made of one `Transformer`.

    Attributes:
      config: what it is made of.
      chunk: tokens of a prompt that are read at once, at most.
      remat: whether gradients keep of a layer only what it read, and compute it again.
    """

    config: TransformerConfig
    chunk: int = CHUNK
    remat: bool = False

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    def init(self, key: jax.Array) -> Params:
        """Returns freshly initialised parameters."""
        tokens = jnp.zeros((1, 1), jnp.int32)
        return Transformer(self.config).init(key, tokens, tokens, None)["params"]

    def forward(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Scores whole sequences, prompt and answer alike; see `Model.forward`."""
        return self._whole(params, tokens, scored=True)

    def answer_logits(
        self, params: Params, prompt: jax.Array, prompt_length: jax.Array, answer: jax.Array
    ) -> jax.Array:
        """Scores answers alone; see `Model.answer_logits`."""
        slots = prompt.shape[1] + answer.shape[1]
        after = jnp.arange(slots) - prompt_length[:, None]
        tokens = jnp.where(
            after < 0,
            jnp.pad(prompt, ((0, 0), (0, answer.shape[1]))),
            jnp.take_along_axis(answer, jnp.clip(after, 0, answer.shape[1] - 1), axis=1),
        )
        at = prompt_length[:, None] - 1 + jnp.arange(answer.shape[1])
        features = self._whole(params, tokens, scored=False)
        return self.head_logits(params, jnp.take_along_axis(features, at[..., None], axis=1))

    def features(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Returns what the head reads in `forward`; see `Model.features`."""
        return self._whole(params, tokens, scored=False)

    def _whole(self, params, tokens, scored):
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        module = Transformer(self.config, self.chunk, self.remat)
        return module.apply({"params": params}, tokens, positions, None, scored)[0]

    def head_logits(
        self, params: Params, features: jax.Array, ids: jax.Array | None = None
    ) -> jax.Array:
        """Scores tokens; see `Model.head_logits`."""
        c = self.config
        weight = params["embedding"] if c.tie_embeddings else params["head"]["weight"]
        return head_logits(weight, features, ids, c.logit_softcap)

    def init_cache(self, batch: int, slots: int, rollback: int | None = None) -> Cache:
        """Returns an empty cache, a `LayerCache` or a `Ring` per layer; see `Model.init_cache`."""
        c = self.config

        def layer(window):
            kind: type[LayerCache | Ring] = LayerCache
            room = slots
            if None not in (window, rollback) and window + rollback < slots:
                kind, room = Ring, window + rollback
            shape = (batch, cached_heads(c), in_tiles(room), c.head_dim)
            # Each its own buffer: the decode loop donates them.
            return kind(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype))

        return tuple(layer(c.layer_window(i)) for i in range(c.num_layers))

    def prefill(
        self, params: Params, tokens: jax.Array, lengths: jax.Array, cache: Cache
    ) -> Prefilled:
        """Reads right-padded prompts, chunk by chunk; see `Model.prefill`.

        Chunks that are padding in every row are left out.
        """
        chunks = -(-tokens.shape[1] // self.chunk)
        width, first = divmod(tokens.shape[1], chunks)
        lengths = jnp.asarray(lengths, jnp.int32)

        def read(start, width, cache):
            chunk = jax.lax.dynamic_slice_in_dim(tokens, start, width, axis=1)
            positions = jnp.broadcast_to(start + jnp.arange(width), chunk.shape)
            module = Transformer(self.config, self.chunk)
            return module.apply({"params": params}, chunk, positions, cache, False, lengths)[1]

        if chunks == 1:
            cache = read(0, width, cache)
        else:
            # What even chunks leave over comes first: behind the prompts there may be no slot.
            cache = read(0, first, cache) if first else cache
            needed = (jnp.max(lengths) - first + width - 1) // width
            cache = jax.lax.fori_loop(
                0, needed, lambda i, cache: read(first + i * width, width, cache), cache
            )
        last = jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]
        return Prefilled(cache, last, lengths - 1)

    def apply(
        self, params: Params, tokens: jax.Array, positions: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Scores the next tokens of every row; see `Model.apply`."""
        module = Transformer(self.config, self.chunk)
        return module.apply({"params": params}, tokens, positions, cache)

    def axis_sizes(self) -> dict[str, int]:
        """Returns what must not be cut within a unit; see `Model.axis_sizes`."""
        return {"heads": self.config.num_heads, "kv_heads": self.config.num_kv_heads}

    def param_axes(self, key: str) -> P:
        """Returns the logical names of a parameter's axes; see `Model.param_axes`."""
        return axes.param_axes(key)

    def cache_axes(self, cache: Cache) -> Cache:
        """Returns the logical names of a cache's axes; see `Model.cache_axes`."""
        return jax.tree.map(lambda _: axes.CACHE, cache)
