"""The decoder-only transformer: against an oracle, and with its cache against itself without."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.models import rope
from speccascade.models.kv_cache import LayerCache
from tests import random_params
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
    "routed": {
        "d_ff": 12,
        "routing": {"branches": 5, "chosen": 2, "d_ff": 8, "pattern": [False, True]},
    },
    "bfloat16": {"window": 4, "window_pattern": (False, True), "dtype": "bfloat16"},
}
FLOAT32 = ["alternating", "tied", pytest.param("routed", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", autouse=True)
def _optimised():
    """Logits are compared to 2e-5 here: programs are compiled as users run them."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@functools.cache
def build(name: str):
    """Returns a model, parameters in which nothing is 0 or 1, and tokens [B, T]."""
    model = models.build({**BASE, **CONFIGS[name]})
    tokens = np.random.default_rng(1).integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    return model, random_params.of(model, scale=1.5), tokens


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, tokens):
    return model.forward(params, tokens, jnp.ones(len(tokens), jnp.int32))


prefill = jax.jit(lambda model, *args: model.prefill(*args), static_argnums=0)
apply = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


@pytest.mark.parametrize("name", FLOAT32)
def test_forward_equals_the_oracle(name):
    model, params, tokens = build(name)
    found = np.asarray(forward(model, params, tokens))
    assert found.shape == (BATCH, LENGTH, VOCAB) and found.dtype == np.float32
    for row in range(2):
        expected = oracle.logits(model.config, params, tokens[row])
        assert expected.std() > 0.5
        np.testing.assert_allclose(found[row], expected, atol=2e-5)


@pytest.mark.parametrize("name", FLOAT32)
def test_answers_alone_score_as_in_whole_texts(name):
    model, params, tokens = build(name)
    lengths = np.array([1, SLOTS, 3, 5, 2], np.int32)
    rows, room = np.arange(BATCH)[:, None], LENGTH - SLOTS
    after = lengths[:, None] + np.arange(room)
    prompt = np.where(np.arange(SLOTS) < lengths[:, None], tokens[:, :SLOTS], VOCAB - 1)
    logits = jax.jit(model.answer_logits)(params, prompt, lengths, tokens[rows, after])
    expected = np.asarray(forward(model, params, tokens))[rows, after - 1]
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def walk(name: str, sizes: list[int], expected: np.ndarray, **changes) -> np.ndarray:
    """Reads texts into the cache in ragged, partly wrong blocks; returns the errors of all logits.

    Args:
      name: which model.
      sizes: tokens per block, in turn.
      expected: the texts' logits, `[B, T, V]`.
      **changes: of the model, or `rollback`, for its cache.
    """
    model, params, tokens = build(name)
    rollback = changes.pop("rollback", None)
    model = dataclasses.replace(model, **changes)
    rng = np.random.default_rng(2)
    lengths = np.array([1, SLOTS, 3, 5, 2], np.int32)
    prompt = np.where(np.arange(SLOTS) < lengths[:, None], tokens[:, :SLOTS], VOCAB - 1)
    cache = model.init_cache(BATCH, LENGTH + max(sizes), rollback)
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
        error = np.abs(np.asarray(logits) - expected[rows[:, None], np.minimum(at, LENGTH - 1)])
        errors.append(error[~wrong])
        # On from the last right token, which is read again, or back to one before it.
        position = np.minimum(position + kept - rng.integers(0, 2, BATCH), LENGTH - 1)
    return np.concatenate(errors)


@pytest.mark.parametrize("name", FLOAT32)
def test_a_cache_changes_nothing(name):
    assert walk(name, [1, BLOCK], np.asarray(forward(*build(name)))).max() < 2e-5


@pytest.mark.parametrize("name", FLOAT32)
def test_neither_do_chunks_and_rings(name):
    # Two tokens that even chunks leave over, then two chunks of three.
    expected = np.asarray(forward(*build(name)))
    assert walk(name, [BLOCK], expected, chunk=3, rollback=BLOCK).max() < 2e-5


def test_sliding_layers_keep_their_window_and_what_may_be_rolled_back():
    model, _, _ = build("alternating")
    cache = jax.eval_shape(lambda: model.init_cache(BATCH, LENGTH, BLOCK))
    assert [layer.keys_BKLH.shape for layer in cache] == [(BATCH, 2, n, 6) for n in (8, LENGTH)]
    short = jax.eval_shape(lambda: model.init_cache(BATCH, 8, BLOCK))
    assert {type(layer) for layer in short} == {LayerCache}


def test_scores_are_made_chunk_by_chunk():
    model, params, tokens = build("alternating")
    found = forward(dataclasses.replace(model, chunk=7), params, tokens)
    np.testing.assert_allclose(found, forward(model, params, tokens), atol=1e-5)


def test_chunks_of_padding_alone_are_not_read():
    model, params, tokens = build("tied")
    model, lengths = dataclasses.replace(model, chunk=8), np.array([9, 3, 16, 1, 2])
    cache = prefill(model, params, tokens, lengths, model.init_cache(BATCH, LENGTH)).cache
    written = [np.abs(np.asarray(layer.keys_BKLH)).max(axis=(0, 1, 3)) > 0 for layer in cache]
    np.testing.assert_array_equal(written, [np.arange(LENGTH) < 16] * 2)


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
    expected = np.asarray(forward(model, params, tokens))[:1, 6 : 6 + BLOCK]
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_a_description_with_scaled_positions_makes_the_same_model():
    scaling = {"kind": "llama3", "factor": 8.0, "original_positions": 16}
    model = models.build({**BASE, "window": 4, "local_rope_base": 30.0, "rope_scaling": scaling})
    again = models.build(json.loads(json.dumps(models.describe(model))))
    assert again == model and hash(again) == hash(model)
    assert model.config.rope_scaling == rope.RopeScaling("llama3", 8.0, 1.0, 4.0, 16)


def test_scaled_frequencies():
    plain = rope.frequencies(16, 100.0)
    np.testing.assert_allclose(plain, 100.0 ** (-np.arange(8) / 8), rtol=1e-6)
    linear = rope.frequencies(16, 100.0, rope.RopeScaling("linear", 4.0))
    np.testing.assert_array_equal(linear, plain / 4)
    # Waves of up to 64 / 4 positions are kept, from 64 on they are stretched.
    llama3 = rope.frequencies(16, 100.0, rope.RopeScaling("llama3", 4.0, 1.0, 4.0, 64))
    waves = 2 * np.pi / plain
    assert [(waves < 16).sum(), (waves > 64).sum()] == [2, 3]
    np.testing.assert_array_equal(llama3[:2], plain[:2])
    np.testing.assert_array_equal(llama3[5:], linear[5:])
    assert np.all((linear < llama3)[2:5] & (llama3 < plain)[2:5])
    share = (64 / waves[2:5] - 1) / 3
    mixed = share * plain[2:5] + (1 - share) * linear[2:5]
    np.testing.assert_allclose(llama3[2:5], mixed, rtol=1e-5)


def test_late_positions_turn_by_the_right_angle():
    positions = np.array([[1, 777, 8191, 131_071]], np.int32)
    frequency = rope.frequencies(64, 1e6)
    x = np.random.default_rng(0).normal(size=(1, 4, 1, 64)).astype(np.float32)
    found = jax.jit(rope.rotate)(x, positions, frequency)[0, :, 0]
    # The angle is rounded to float32, as in the reference; its sine and cosine are exact.
    angle = (positions[0][:, None].astype(np.float32) * frequency).astype(np.float64)
    a, b = np.split(x[0, :, 0].astype(np.float64), 2, axis=-1)
    expected = (a + 1j * b) * np.exp(1j * angle)
    np.testing.assert_allclose(found, np.concatenate([expected.real, expected.imag], 1), atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"kind": "ntk", "factor": 2.0}}, "'ntk' is unknown; choose one of: lin"),
        ({"rope_scaling": {"kind": "linear"}}, "rope_scaling lacks factor"),
        (
            {"rope_scaling": {"kind": "linear", "factor": 0}},
            "factor=0; it must be a number",
        ),
        ({"rope_scaling": {"factr": 1}}, "unknown fields factr; known: kind, factor, "),
        (
            {"rope_scaling": {"kind": "llama3", "factor": 8.0, "low_freq_factor": 4.0}},
            "high_freq_factor=4.0 must be above low_freq_factor=4.0",
        ),
        ({"local_rope_base": 10.0}, "give a window too"),
        ({"attn_softcap": 0.0}, "attn_softcap=0.0 must be above 0"),
        ({"norm_param_dtype": "int8"}, "choose one of: float32, bfloat16, None"),
    ],
)
def test_a_bad_description_is_one_clear_line(change, message):
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        models.build({**BASE, **change})
    assert message in str(caught.value)
