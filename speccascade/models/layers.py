"""What all models are made of: products with weights, norms, the embedding and the output head.

Weights are stored `[out, in]`: products of few rows then read them in memory order, which is what
bounds decoding.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from speccascade.models import native
from speccascade.models.attention import squash
from speccascade.models.int8 import Int8, matrix
from speccascade.models.low_rank import LowRank
from speccascade.models.t5_config import T5Config
from speccascade.models.transformer_config import TransformerConfig
from speccascade.sharding.active import look_up


def embed(table: jax.Array | Int8, tokens: jax.Array, dtype) -> jax.Array:
    """Returns the rows of `tokens [B, S]`, `[B, S, D]`."""
    if isinstance(table, Int8):
        scale = look_up(table.scale[:, None], tokens)
        return (look_up(table.values, tokens).astype(jnp.float32) * scale).astype(dtype)
    return look_up(table, tokens).astype(dtype)


def product(x: jax.Array, w: jax.Array | Int8 | LowRank, out_dtype=None) -> jax.Array:
    """`x [..., in] @ w [out, in]`, of dtype `out_dtype` or, without it, of x's."""
    if isinstance(w, LowRank):  # which is the place of a frozen matrix in training
        y = product(x, w.weight, jnp.float32)
        y += w.scale * product(product(x, w.a), w.b, jnp.float32)
    elif isinstance(w, Int8):
        y = _multiplied(x, w.values, jnp.float32) * w.scale
    else:
        y = _multiplied(x, w, out_dtype)
    return y.astype(out_dtype or x.dtype)


def _multiplied(x: jax.Array, w: jax.Array, out_dtype) -> jax.Array:
    """`x [..., in] @ w [out, in]`; of few rows in float32, of more in `out_dtype` or x's.

    Two facts of XLA on CPU shape it. One-row bf16 products take a slow path, two to ten times the
    cost of two rows, and few rows are fastest into float32: a lone row is padded. The gradients of
    many rows are fastest where the product is bf16 throughout. Where `native` is loaded, it takes
    few rows.
    """
    rows = x.size // x.shape[-1]
    if native.serves(rows, w):
        return native.product(x, w)
    padded = jnp.broadcast_to(x, (2, *x.shape)) if rows == 1 and x.dtype == jnp.bfloat16 else x
    y = jax.lax.dot_general(
        padded,
        w.astype(x.dtype),
        (((padded.ndim - 1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32 if rows < 64 else out_dtype,
    )
    return y if padded is x else y[0]


def fan_in(batch_axis: int | tuple[()] = ()):
    """Returns the initialiser of matrices `[out, in]`, many of them along `batch_axis`."""
    return nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2, batch_axis=batch_axis
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
        y = product(x, matrix(self, "weight", fan_in(), shape, self.config))
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
    return squash(product(x, weight, jnp.float32), softcap)


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
        weight = matrix(self, "weight", fan_in(), (size, c.d_model), c)
        logits = head_logits(weight, x, softcap=self.softcap)
        if c.head_size is None:
            return logits
        ids = self.param("ids", lambda key: jnp.arange(size, dtype=jnp.int32))
        return jnp.full((*x.shape[:-1], c.vocab_size), -jnp.inf).at[..., ids].set(logits)
