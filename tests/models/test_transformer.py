"""The decoder-only transformer: against an oracle, and with its cache against itself without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models
from tests.models import oracle

VOCAB, BATCH, SLOTS, LENGTH, BLOCK = 23, 5, 8, 24, 4
BASE = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "d_ff": 20,
}
CONFIGS = {
    "alternating": {
        "tie_embeddings": False,
        "window": 4,
        "window_pattern": (True, False),
        "attn_softcap": 2.0,
        "logit_softcap": 5.0,
    },
    "tied": {
        "num_kv_heads": 1,
        "activation": "gelu",
        "scale_embeddings": True,
        "rope_base": 500.0,
        "window": 3,
        "norm_eps": 1e-2,
    },
    "bfloat16": {"window": 4, "window_pattern": (False, True), "dtype": "bfloat16"},
}
FLOAT32 = ["alternating", "tied"]


@functools.cache
def build(name: str):
    """Returns a model, parameters in which nothing is 0 or 1, and tokens [B, T]."""
    model = models.build({**BASE, **CONFIGS[name]})
    leaves, tree = jax.tree.flatten(model.init(jax.random.key(0)))
    rng = np.random.default_rng(1)
    leaves = [x * 1.5 + 0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    tokens = rng.integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    return model, jax.tree.unflatten(tree, leaves), tokens


forward = jax.jit(lambda model, params, tokens: model.forward(params, tokens), static_argnums=0)
prefill = jax.jit(lambda model, *args: model.prefill(*args), static_argnums=0)
apply = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


@pytest.mark.parametrize("name", FLOAT32)
def test_forward_equals_the_oracle(name):
    model, params, tokens = build(name)
    found = forward(model, params, tokens)
    assert found.shape == (BATCH, LENGTH, VOCAB) and found.dtype == jnp.float32
    for row in range(2):
        expected = oracle.logits(model.config, params, tokens[row])
        assert expected.std() > 0.5
        np.testing.assert_allclose(found[row], expected, atol=2e-5)


def walk(name: str, sizes: list[int], expected: np.ndarray) -> np.ndarray:
    """Reads texts into the cache in ragged, partly wrong blocks; returns the errors of all logits.

    Args:
      name: which model.
      sizes: tokens per block, in turn.
      expected: the texts' logits, `[B, T, V]`.
    """
    model, params, tokens = build(name)
    rng = np.random.default_rng(2)
    lengths = np.array([1, SLOTS, 3, 5, 2], np.int32)
    prompt = np.where(np.arange(SLOTS) < lengths[:, None], tokens[:, :SLOTS], VOCAB - 1)
    cache = model.init_cache(BATCH, LENGTH + max(sizes))
    cache, last, position = prefill(model, params, prompt, lengths, cache)
    np.testing.assert_array_equal(position, lengths - 1)
    np.testing.assert_array_equal(last, tokens[np.arange(BATCH), lengths - 1])
    position, errors = np.array(position), []
    rows, step = np.arange(BATCH), 0
    while position.min() < LENGTH - 1:
        size = sizes[step % len(sizes)]
        step += 1
        # The first `kept` tokens of each block are the text's, the others were drafted in vain.
        kept = rng.integers(1, size + 1, BATCH)
        at = position[:, None] + np.arange(size)
        wrong = (np.arange(size) >= kept[:, None]) | (at >= LENGTH)
        own = tokens[rows[:, None], np.minimum(at, LENGTH - 1)]
        block = np.where(wrong, rng.integers(0, VOCAB, (BATCH, size)), own)
        logits, cache = apply(model, params, block, at, cache)
        error = np.abs(logits - expected[rows[:, None], np.minimum(at, LENGTH - 1)])
        errors.append(error[~wrong])
        # On from the last right token, which is read again, or back to one before it.
        position = np.minimum(position + kept - rng.integers(0, 2, BATCH), LENGTH - 1)
    return np.concatenate(errors)


@pytest.mark.parametrize("name", FLOAT32)
def test_a_cache_changes_nothing(name):
    assert walk(name, [1, BLOCK], np.asarray(forward(*build(name)))).max() < 2e-5


def test_bfloat16_is_close_to_the_oracle():
    model, params, tokens = build("bfloat16")
    expected = np.stack([oracle.logits(model.config, params, row) for row in tokens])
    errors = walk("bfloat16", [BLOCK], expected) / expected.std()
    assert errors.mean() < 0.05 and errors.max() < 1


def test_one_row_is_cached_as_many_are():
    # A batch of one writes its cache in another way.
    model, params, tokens = build("alternating")
    cache = model.init_cache(1, LENGTH)
    cache = prefill(model, params, tokens[:1, :SLOTS], np.array([SLOTS]), cache).cache
    at = np.arange(6, 6 + BLOCK)[None]
    logits, _ = apply(model, params, tokens[:1, 6 : 6 + BLOCK], at, cache)
    expected = forward(model, params, tokens)[:1, 6 : 6 + BLOCK]
    np.testing.assert_allclose(logits, expected, atol=2e-5)
