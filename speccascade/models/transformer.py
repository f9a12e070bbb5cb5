"""A decoder-only transformer in Flax Linen, with and without a cache.

One module serves training (`forward`), prefill and block scoring (`apply`). Its layers are
unrolled: on CPU a scan over stacked weights copies every layer out before it is used.

Axis letters are those of `interface.py`. Weights are stored `[out, in]`: products of few rows then
read them in memory order, which is what bounds decoding.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.models import axes, native, rope
from speccascade.models.attention import CHUNK, attend, causal, squash
from speccascade.models.int8 import Int8, matrix
from speccascade.models.interface import Cache, Params, Prefilled
from speccascade.models.kv_cache import LayerCache, Ring, in_tiles, slots_of
from speccascade.models.low_rank import LowRank
from speccascade.models.t5_config import T5Config
from speccascade.models.transformer_config import ACTIVATIONS, TransformerConfig
from speccascade.sharding.active import constrain, look_up, ways


def _embed(table: jax.Array | Int8, tokens: jax.Array, dtype) -> jax.Array:
    """Returns the rows of `tokens [B, S]`, `[B, S, D]`."""
    if isinstance(table, Int8):
        scale = look_up(table.scale[:, None], tokens)
        return (look_up(table.values, tokens).astype(jnp.float32) * scale).astype(dtype)
    return look_up(table, tokens).astype(dtype)


def _product(x: jax.Array, w: jax.Array | Int8 | LowRank, out_dtype=None) -> jax.Array:
    """`x [..., in] @ w [out, in]`, of dtype `out_dtype` or, without it, of x's.

    Two facts of XLA on CPU shape it. One-row bf16 products take a slow path, two to ten times the
    cost of two rows, and few rows are fastest into float32: a lone row is padded. The gradients of
    many rows are fastest where the product is bf16 throughout. Where `native` is loaded, it takes
    few rows.
    """
    if isinstance(w, LowRank):  # which is the place of a frozen matrix in training
        y = _product(x, w.weight, jnp.float32)
        y += w.scale * _product(_product(x, w.a), w.b, jnp.float32)
        return y.astype(out_dtype or x.dtype)
    rows = x.size // x.shape[-1]
    own = w.values if isinstance(w, Int8) else w
    if native.serves(rows, own):
        y = native.product(x, own)
        return (y * w.scale if isinstance(w, Int8) else y).astype(out_dtype or x.dtype)
    padded = jnp.broadcast_to(x, (2, *x.shape)) if rows == 1 and x.dtype == jnp.bfloat16 else x
    wide = rows < 64 or isinstance(w, Int8)
    y = jax.lax.dot_general(
        padded,
        own.astype(x.dtype),
        (((padded.ndim - 1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32 if wide else out_dtype,
    )
    if isinstance(w, Int8):
        y *= w.scale
    return (y if padded is x else y[0]).astype(out_dtype or x.dtype)


def _fan_in():
    return nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
    )


class Linear(nn.Module):
    """A product with a weight stored `[out, in]`, and a bias where asked for."""

    features: int
    config: TransformerConfig | T5Config
    bias: bool = False

    @nn.compact
    def __call__(self, x):
        """Maps `[..., in]` to `[..., features]` in the config's dtype."""
        shape = (self.features, x.shape[-1])
        y = _product(x, matrix(self, "weight", _fan_in(), shape, self.config))
        if self.bias:
            init = nn.initializers.zeros
            bias = self.param("bias", init, (self.features,), self.config.param_dtype)
            y += bias.astype(y.dtype)
        return y


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019) in float32.

    Attributes:
      config: the model's.
      param_dtype: dtype of the scale; None for the config's.
    """

    config: TransformerConfig | T5Config
    param_dtype: str | None = None

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to `[..., D]`."""
        dtype = self.param_dtype or self.config.param_dtype
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), dtype)
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        y = x32 * jax.lax.rsqrt(mean_square + self.config.norm_eps) * scale.astype(jnp.float32)
        return y.astype(x.dtype)


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


class GatedMLP(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to `[..., D]`."""
        c = self.config
        gate = ACTIVATIONS[c.activation](Linear(c.d_ff, c, c.mlp_bias, name="gate")(x))
        up = Linear(c.d_ff, c, c.mlp_bias, name="up")(x)
        inner = constrain(gate * up, "batch", None, "mlp")
        y = Linear(c.d_model, c, c.mlp_bias, name="down")(inner)
        return constrain(y, "batch", None, None)


def head_logits(
    weight: jax.Array | Int8,
    x: jax.Array,
    ids: jax.Array | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """Scores tokens.

    Args:
      weight: the head's rows, `[V, D]`.
      x: what it reads, `[..., D]`.
      ids: int32 [K], the rows wanted; None for all.
      softcap: the logits are squashed to within +-softcap; None for not at all.

    Returns:
      float32 logits `[..., V]`, or `[..., K]`.
    """
    weight = weight if ids is None else weight[ids]
    return squash(_product(x, weight, jnp.float32), softcap)


class Head(nn.Module):
    """An output head of its own. One of fewer rows knows whose they are; no other id is likely.

    Attributes:
      config: the model's, of any family.
      softcap: as in `head_logits`.
    """

    config: Any
    softcap: float | None = None

    @nn.compact
    def __call__(self, x):
        """Maps `[..., D]` to float32 logits `[..., V]`: -inf where the head has no row."""
        c = self.config
        size = c.head_size or c.vocab_size
        weight = matrix(self, "weight", _fan_in(), (size, c.d_model), c)
        logits = head_logits(weight, x, softcap=self.softcap)
        if c.head_size is None:
            return logits
        ids = self.param("ids", lambda key: jnp.arange(size, dtype=jnp.int32))
        return jnp.full((*x.shape[:-1], c.vocab_size), -jnp.inf).at[..., ids].set(logits)


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
        x = constrain(_embed(embedding, tokens_BS, c.dtype), "batch", None, None)
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
                y = GatedMLP(c, name=f"mlp_{i}")(norm(f"mlp_norm_{i}", x))
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
