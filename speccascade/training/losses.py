"""Losses per token, and their weighted mean over a batch of problems."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from speccascade.errors import UserError


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log p(target): [..., V] float32 and [...] int32 -> [...] float32."""
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return jax.nn.logsumexp(logits, -1) - chosen


# What padding scores. Finite: its products with a probability of 0, and their gradients, are 0.
_NEVER = -1e30


def of_known(logits: jax.Array, known: int) -> jax.Array:
    """Returns logits [..., V] by which no token id from `known` on has any probability."""
    if logits.shape[-1] == known:
        return logits
    return jnp.where(jnp.arange(logits.shape[-1]) < known, logits, _NEVER)


# Distances of a student's log-probabilities from its teacher's, `[..., K]` each. Where K is part of
# the vocabulary, the student gives no other token any mass; what the teacher gives them is a
# constant.


def forward_kl(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """KL(teacher || student), [...]; over part of the vocabulary, without what lies outside."""
    p = jnp.exp(log_p)
    return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0.0), -1)


def reverse_kl(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """KL(student || teacher), [...]."""
    return forward_kl(log_p, log_q)


def total_variation(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """Half the L1 distance [...]: the probability that a drafted token is rejected."""
    q, p = jnp.exp(log_q), jnp.exp(log_p)
    return 0.5 * (jnp.sum(jnp.abs(q - p), -1) + 1 - jnp.sum(p, -1))


def jensen_shannon(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """The mean KL of both to the mean of both, [...]; at most log 2."""
    middle = jnp.logaddexp(log_q, log_p) - jnp.log(2.0)
    outside = 1 - jnp.sum(jnp.exp(log_p), -1)  # the teacher's alone
    both = forward_kl(middle, log_p) + forward_kl(middle, log_q)
    return 0.5 * (both + outside * jnp.log(2.0))


DISTILLATION = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "total_variation": total_variation,
}


def distillation(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The distillation loss called `name`; `UserError` if there is none."""
    if not isinstance(name, str) or name not in DISTILLATION:
        raise UserError(f"unknown distillation loss {name!r}; known: {', '.join(DISTILLATION)}")
    return DISTILLATION[name]


def token_weights(
    length: int, prompt_length: jax.Array, total_length: jax.Array, prompt_weight: float
) -> jax.Array:
    """Weight of predicting token t + 1 from position t, [B, length - 1] float32.

    1 for answer tokens and EOS, `prompt_weight` for prompt tokens, 0 for padding.
    """
    predicted = jnp.arange(1, length)[None, :]
    inside = predicted < total_length[:, None]
    answer = predicted >= prompt_length[:, None]
    return jnp.where(inside, jnp.where(answer, 1.0, prompt_weight), 0.0)


def mean_part(values: jax.Array, weights: jax.Array, total: jax.Array) -> jax.Array:
    """Returns what a part of a batch adds to a weighted mean, [].

    Args:
      values: [...], of the part.
      weights: [...], of the part.
      total: [], the sum of the weights of the whole batch.
    """
    return jnp.sum(values * weights) / jnp.maximum(total, 1e-6)
