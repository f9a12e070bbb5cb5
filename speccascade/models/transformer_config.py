"""What a decoder-only transformer is made of, as data."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from speccascade.errors import UserError
from speccascade.models import rope

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "gelu": partial(nn.gelu, approximate=True),
    "gelu_exact": partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}
DTYPES = ("float32", "bfloat16")
WEIGHT_DTYPES = (None, "int8")


def check_sizes(config: Any, names: str, within: str = "") -> None:
    """Raises UserError where a field, of names joined by spaces, is neither None nor at least 1."""
    for name in names.split():
        size = getattr(config, name)
        if size is not None and size < 1:
            raise UserError(f"{within}{name}={size} must be at least 1")


def check_head(config: Any) -> None:
    """Raises UserError where a smaller head is larger than the vocabulary, or is the embedding."""
    check_sizes(config, "head_size")
    if config.head_size is None:
        return
    if config.tie_embeddings:
        raise UserError(f"head_size={config.head_size} needs tie_embeddings=False")
    if config.head_size > config.vocab_size:
        raise UserError(
            f"head_size={config.head_size} is above the vocabulary of {config.vocab_size} tokens"
        )


def check_choices(config: Any, choices: Mapping[str, Iterable]) -> None:
    """Raises UserError where a field is none of its choices."""
    for name, known in choices.items():
        if (value := getattr(config, name)) not in known:
            listed = ", ".join(map(str, known))
            raise UserError(f"{name}={value!r} is unknown; choose one of: {listed}")


@dataclasses.dataclass(frozen=True)
class Routing:
    """Feed-forward layers of which a token goes through a few (Shazeer et al. 2017).

    The literature calls them experts and all of them a mixture. Here an expert is the large model
    of a pair and `mixture` a rule: they are the branches of a routed layer.

    Attributes:
      branches: how many there are.
      chosen: through how many a token goes: those that a softmax over all of them gives most.
      d_ff: the width of each.
      normalised: whether the weights of those that are chosen are made to sum to one. They are then
        a softmax over them alone, as Mixtral has it.
      shared_d_ff: the width of one more, through which every token goes, weighted by a sigmoid of
        its own (Qwen2-MoE); None for none.
      pattern: which layers are routed, repeated over the layers; the others are ordinary.
    """

    branches: int
    chosen: int
    d_ff: int
    normalised: bool = True
    shared_d_ff: int | None = None
    pattern: tuple[bool, ...] = (True,)

    def __post_init__(self):
        object.__setattr__(self, "pattern", tuple(self.pattern))
        check_sizes(self, "branches chosen d_ff shared_d_ff", "routing ")
        if self.chosen > self.branches:
            raise UserError(f"routing chosen={self.chosen} is above branches={self.branches}")
        if not self.pattern:
            raise UserError("routing pattern is empty; give it at least one bool")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The sizes and options of one transformer.

    Attributes:
      vocab_size: number of token ids.
      d_model: width of the residual stream.
      num_layers: number of attention and feed-forward layers.
      num_heads: query heads.
      num_kv_heads: key-value heads; divides `num_heads`.
      head_dim: width of a head, even.
      d_ff: width of the gated feed-forward layers that are not routed.
      routing: how the others are; None where there are none.
      activation: the gate's activation, a name in `ACTIVATIONS`; "gelu" is its tanh approximation.
      tie_embeddings: whether the output head is the embedding.
      head_size: how many token ids an output head of its own scores, for a drafter; the others are
        never likely. None for all of them.
      qkv_bias: whether the products that make queries, keys and values have biases.
      output_bias: whether the product that ends attention has one.
      mlp_bias: whether the products of the feed-forward layer have biases.
      qk_norm: whether queries and keys are normed, head by head, before their positions.
      post_norms: whether what attention and feed-forward layers add is normed too (Gemma 2, 3).
      query_pre_attn_scalar: attention scores are divided by its square root; None for `head_dim`.
      rope_base: base of the rotary frequencies.
      rope_scaling: how these frequencies are scaled, a `RopeScaling` or a mapping of its fields;
        None for not at all.
      local_rope_base: another base for sliding-window layers, whose frequencies are not scaled
        (Gemma 3); None where all layers have the same.
      window: tokens that a sliding-window layer sees, itself included; None for none.
      window_pattern: which layers slide, repeated over the layers: `(True, False)` alternates.
      attn_softcap: attention scores are squashed to within +-cap; None for none.
      logit_softcap: the same for the output logits.
      scale_embeddings: whether embeddings are multiplied by sqrt(d_model), rounded to `dtype`.
      norm_eps: epsilon of the RMS norms.
      dtype: dtype of activations and of the operands of matrix products, which accumulate in
        float32.
      param_dtype: dtype in which parameters are made.
      weight_dtype: dtype in which the embedding and the matrices of products are kept: "int8" for
        whole numbers with one float32 scale per row; None for `param_dtype`.
      norm_param_dtype: dtype in which the scales of norms are made; None for `param_dtype`. Scales
        stored as their difference from one (Gemma) lose precision as bfloat16 once one is added.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff: int
    activation: str = "silu"
    tie_embeddings: bool = True
    head_size: int | None = None
    routing: Routing | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    query_pre_attn_scalar: float | None = None
    rope_base: float = 10_000.0
    rope_scaling: rope.RopeScaling | None = None
    local_rope_base: float | None = None
    window: int | None = None
    window_pattern: tuple[bool, ...] = (True,)
    attn_softcap: float | None = None
    logit_softcap: float | None = None
    scale_embeddings: bool = False
    norm_eps: float = 1e-6
    dtype: str = "float32"
    param_dtype: str = "float32"
    weight_dtype: str | None = None
    norm_param_dtype: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "window_pattern", tuple(self.window_pattern))
        object.__setattr__(self, "rope_scaling", rope.RopeScaling.of(self.rope_scaling))
        check_sizes(
            self, "vocab_size d_model num_layers num_heads num_kv_heads head_dim d_ff window"
        )
        check_head(self)
        scales = "query_pre_attn_scalar rope_base local_rope_base attn_softcap logit_softcap"
        for name in scales.split():
            scale = getattr(self, name)
            if scale is not None and not scale > 0:
                raise UserError(f"{name}={scale} must be above 0")
        choices = {
            "activation": ACTIVATIONS,
            "dtype": DTYPES,
            "param_dtype": DTYPES,
            "norm_param_dtype": (*DTYPES, None),
            "weight_dtype": WEIGHT_DTYPES,
        }
        check_choices(self, choices)
        if not self.window_pattern:
            raise UserError("window_pattern is empty; give it at least one bool")
        if self.routing is not None and self.mlp_bias:
            raise UserError("mlp_bias is not for routed layers; give mlp_bias=False")
        if self.local_rope_base is not None and self.window is None:
            raise UserError("local_rope_base is for sliding-window layers; give a window too")
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim={self.head_dim} must be even for rotary positions")

    def layer_routing(self, layer: int) -> Routing | None:
        """Returns how the feed-forward layer of layer `layer` is routed, None where it is not."""
        pattern = (False,) if self.routing is None else self.routing.pattern
        return self.routing if pattern[layer % len(pattern)] else None

    def layer_window(self, layer: int) -> int | None:
        """Returns the window of layer `layer`, None where it sees everything."""
        slides = self.window_pattern[layer % len(self.window_pattern)]
        return self.window if slides else None

    def layer_frequencies(self, layer: int) -> np.ndarray:
        """Returns the rotary frequencies of layer `layer`, float32 [head_dim / 2]."""
        if self.local_rope_base is not None and self.layer_window(layer) is not None:
            return rope.frequencies(self.head_dim, self.local_rope_base)
        return rope.frequencies(self.head_dim, self.rope_base, self.rope_scaling)
