"""What the decode engine, training and evaluation know of a model.

A model is a frozen, hashable description; its parameters travel apart, as a pytree. Axis letters,
here and in the whole package:

  B batch        T prompt tokens      S tokens of a call   V vocabulary      N draft length
  L cache slots  D model width        F feed-forward width
  Q query heads  K key-value heads    G = Q / K            H head width
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import PartitionSpec

Params = Any
Cache = Any


class Dropout(NamedTuple):
    """Units that training leaves out (Srivastava et al. 2014), of an encoder-decoder.

    Attributes:
      key: of the masks; one mask for all positions of a row.
      rate: the probability that a unit is left out, a Python float.
    """

    key: jax.Array
    rate: float


class Prefilled(NamedTuple):
    """What is left to do after the prompt was read.

    Attributes:
      cache: holds everything before `last`.
      last: int32 [B], the newest token, which the cache does not hold yet.
      position: int32 [B], the position of `last`.
    """

    cache: Cache
    last: jax.Array
    position: jax.Array


class Model(Protocol):
    """A language model with an explicit cache.

    Caches go by positions: `apply` writes the tokens it is given at their own positions and a token
    sees only positions up to its own. Rolling back is therefore nothing but going on from a smaller
    position, row by row. Where positions begin is the model's own affair: `prefill` tells
    it. A model that reads the prompt with an encoder keeps it apart from these slots.
    """

    vocab_size: int

    @property
    def config(self) -> Any:
        """Its sizes, as its family has them."""
        ...

    @property
    def chunk(self) -> int:
        """Queries whose attention scores are made at a time."""
        ...

    def __hash__(self) -> int: ...

    def init(self, key: jax.Array) -> Params:
        """Returns freshly initialised parameters."""
        ...

    def forward(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Scores whole sequences without a cache.

        Args:
          params: the model's parameters.
          tokens: int32 [B, T], prompt and answer, right-padded (padding cannot reach what precedes
            it).
          prompt_length: int32 [B], each at least 1.

        Returns:
          float32 [B, T, V] logits of the token after each: those at `prompt_length - 1` predict the
          first token of the answer. Before that an encoder-decoder has none, and they are zeros.
        """
        ...

    def answer_logits(
        self, params: Params, prompt: jax.Array, prompt_length: jax.Array, answer: jax.Array
    ) -> jax.Array:
        """Scores answers alone, without a cache.

        An encoder-decoder also takes `dropout`, for training: a `Dropout`.

        Args:
          params: the model's parameters.
          prompt: int32 [B, P], right-padded.
          prompt_length: int32 [B], each at least 1.
          answer: int32 [B, A], right-padded.

        Returns:
          float32 [B, A, V] logits of each answer's tokens, given the prompt and those before.
        """
        ...

    def features(self, params: Params, tokens: jax.Array, prompt_length: jax.Array) -> jax.Array:
        """Returns `[B, T, D]`, what the output head reads in `forward`, which takes the same."""
        ...

    def head_logits(
        self, params: Params, features: jax.Array, ids: jax.Array | None = None
    ) -> jax.Array:
        """Scores tokens.

        Args:
          params: the model's parameters.
          features: `[..., D]`, from `features`.
          ids: int32 [K], rows of the head; None for all of them.

        Returns:
          float32 logits `[..., K]`, of as many token ids as the head has rows where none are given.
        """
        ...

    def init_cache(self, batch: int, slots: int, rollback: int | None = None) -> Cache:
        """Returns an empty cache.

        Args:
          batch: rows; axis 0 of every leaf.
          slots: positions of a row.
          rollback: the most positions by which a row goes on behind the newest that it ever wrote,
            and the last token of a call stands behind its first. Layers with a window may then keep
            so many positions only beside their window. None for any number.
        """
        ...

    def prefill(
        self, params: Params, tokens: jax.Array, lengths: jax.Array, cache: Cache
    ) -> Prefilled:
        """Reads right-padded prompts.

        What that takes in memory beside the cache grows with the prompt at most linearly.

        Args:
          params: the model's parameters.
          tokens: int32 [B, T].
          lengths: int32 [B], each at least 1.
          cache: from `init_cache`, of at least T slots.

        Returns:
          A cache in which each row has slots for at least as many tokens as before, less T; an
          encoder-decoder's has fewer than it was given.
        """
        ...

    def apply(
        self, params: Params, tokens: jax.Array, positions: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Scores the next tokens of every row and writes them into the cache.

        Args:
          params: the model's parameters.
          tokens: int32 [B, S].
          positions: int32 [B, S], consecutive within a row; the last one below the cache's slots.
          cache: holds everything before `positions[:, 0]`; what it holds after is overwritten.

        Returns:
          float32 [B, S, V] logits of the token after each, and the new cache.
        """
        ...

    def axis_sizes(self) -> Mapping[str, int]:
        """Returns how many units the axes have that must not be cut within one, by logical name.

        The names are those of `sharding/rules.py`.
        """
        ...

    def param_axes(self, key: str) -> PartitionSpec:
        """Returns the logical names of a parameter's axes.

        Args:
          key: its flat key, "attention_0/query/weight".
        """
        ...

    def cache_axes(self, cache: Cache) -> Any:
        """Returns the logical names of a cache's axes, as a pytree like it."""
        ...


@functools.lru_cache(maxsize=256)
def shapes(model: Model) -> Params:
    """Returns the shapes and dtypes of a model's parameters, `jax.ShapeDtypeStruct`s.

    They are traced once per model: what reads, casts and lays out parameters asks again and again.
    """
    return jax.eval_shape(model.init, jax.random.key(0))
