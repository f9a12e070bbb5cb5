"""Distributions against numpy in float64; draws against the exact inverse of the cumulative sum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from speccascade.sampling import Truncation, confidence, distribution, draw
from speccascade.vocab import Vocab

TOP = 1 - 2**-24  # the largest uniform
OFF = {"top_k": 10**6, "top_p": 1.0, "min_p": 0.0}


run = jax.jit(distribution)

# ---- distribution ----


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def oracle(logits, temperature, top_k=None, top_p=None, min_p=None):
    """One row in float64: `[V]`, and how close the nearest decision to keep a token was."""
    logits = logits.astype(np.float64)
    if temperature == 0:
        return np.eye(len(logits))[np.argmax(logits)], 1.0
    probs, margin = softmax(logits / temperature), 1.0
    if top_k is not None and top_k < len(probs):
        probs = np.where(probs >= np.sort(probs)[-top_k], probs, 0)
        probs /= probs.sum()
    keep = np.ones(len(probs), bool)
    if top_p is not None and top_p < 1:
        # The most probable first; a group of ties comes whole.
        values = np.unique(probs)[::-1]
        masses = np.array([probs[probs >= value].sum() for value in values])
        keep &= probs >= values[np.argmax(masses >= top_p)]
        margin = min(margin, np.abs(masses - top_p).min())
    if min_p is not None:
        keep &= probs >= min_p * probs.max()
        margin = min(margin, np.abs(probs - min_p * probs.max())[probs < probs.max()].min())
    probs = np.where(keep, probs, 0)
    return probs / probs.sum(), margin


@functools.cache
def cases(batch=64, vocab=23):
    """Logits [B, 2, V], temperatures [B] and limits [B]; rows of every kind beside each other."""
    rng = np.random.default_rng(7)
    logits = rng.normal(scale=2.5, size=(batch, 2, vocab)).astype(np.float32)
    logits[::4] = np.round(logits[::4])  # ties
    logits[1::8, :, ::3] = -np.inf
    logits[2::8] += 60.0
    temperature = rng.choice([0.0, 0.3, 0.7, 1.0, 1.5], size=batch).astype(np.float32)
    limits = {
        "top_k": rng.choice([1, 2, 5, 22, 23, 1000], size=batch).astype(np.int32),
        "top_p": rng.choice([0.05, 0.51, 0.9, 0.99, 1.0], size=batch).astype(np.float32),
        "min_p": rng.choice([0.0, 0.03, 0.2, 1.0], size=batch).astype(np.float32),
    }
    return logits, temperature, limits


def check(fields, found, logits, temperature, limits):
    """Compares `[B, 2, V]` with the oracle, rounding aside; returns how many rows were compared."""
    compared = 0
    for row in range(len(logits)):
        for place in range(2):
            limit = {name: limits[name][row].item() for name in fields}
            expected, margin = oracle(logits[row, place], temperature[row], **limit)
            if margin > 1e-5:
                np.testing.assert_allclose(found[row, place], expected, atol=2e-6, err_msg=limit)
                np.testing.assert_array_equal(found[row, place] > 0, expected > 0)
                compared += 1
    return compared


FIELDS = [(), ("top_k",), ("top_p",), ("min_p",), ("top_k", "top_p", "min_p")]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_distribution_is_the_oracles(fields):
    logits, temperature, limits = cases()
    truncation = Truncation(**{name: limits[name] for name in fields}) if fields else None
    found = np.asarray(run(logits, temperature, truncation))
    assert found.dtype == np.float32
    assert check(fields, found, logits, temperature, limits) > 90
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    greedy = temperature == 0
    assert np.all(np.isin(found[greedy], (0, 1)))
    np.testing.assert_array_equal(found[greedy].argmax(-1), logits[greedy].argmax(-1))


def test_limits_that_are_off_keep_every_token():
    logits = np.array([np.linspace(0, 20, 50)], np.float32)  # the last tokens are below an ulp of 1
    off = Truncation(**{name: np.array([value]) for name, value in OFF.items()})
    found, plain = (run(logits, np.ones(1, np.float32), t) for t in (off, None))
    assert np.all(np.asarray(found) > 0)
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_ties_with_the_last_kept_are_kept():
    logits = np.log(np.array([[0.4, 0.2, 0.2, 0.1, 0.1]], np.float32))
    ones = np.ones(1, np.float32)
    for truncation in (Truncation(top_k=np.array([2])), Truncation(top_p=0.5 * ones)):
        found = run(logits, ones, truncation)
        np.testing.assert_allclose(found[0], [0.5, 0.25, 0.25, 0, 0], atol=1e-6)


def test_greedy_takes_the_first_of_the_largest():
    logits = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [-np.inf, 0, -np.inf, 0]], np.float32)
    found = run(logits, np.zeros(3, np.float32))
    np.testing.assert_array_equal(found, np.eye(4)[[1, 0, 1]])


def test_low_precision_logits_are_read_as_float32():
    logits = jnp.asarray([[0.5, 1.25, -2.0]], jnp.bfloat16)
    found = run(logits, np.ones(1, np.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[0], softmax(np.array([0.5, 1.25, -2.0])), rtol=1e-6)


def test_tiny_temperatures_do_not_overflow():
    logits = np.array([[50.0, 49.0, 50.0], [1.0, -np.inf, 0.0]], np.float32)
    found = run(logits, np.full(2, 1e-37, np.float32))
    np.testing.assert_array_equal(found, [[0.5, 0, 0.5], [1, 0, 0]])


def test_confidence_is_untruncated_at_temperature_one():
    logits, _, _ = cases()
    found = np.asarray(confidence(logits))
    expected = np.apply_along_axis(softmax, -1, logits.astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rows_do_not_depend_on_their_place():
    logits, temperature, limits = cases()
    order = np.random.default_rng(1).permutation(len(logits))
    plain = run(logits, temperature, Truncation(**limits))
    moved = run(
        logits[order], temperature[order], Truncation(**{k: v[order] for k, v in limits.items()})
    )
    np.testing.assert_array_equal(moved, plain[order])


def test_sharded_distribution_equals_the_whole():
    logits, temperature, limits = cases(vocab=24)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("vocab",))
    shards = P(None, None, "vocab")
    sharded = jax.shard_map(
        functools.partial(distribution, vocab=Vocab("vocab")),
        mesh=mesh,
        in_specs=(shards, P(), P()),
        out_specs=shards,
    )
    found = np.asarray(jax.jit(sharded)(logits, temperature, Truncation(**limits)))
    assert check(tuple(limits), found, logits, temperature, limits) > 90
    whole = np.asarray(run(logits, temperature, Truncation(**limits)))
    greedy = temperature == 0
    np.testing.assert_array_equal(found[greedy], whole[greedy])


# ---- draw ----


def weights_of(vocab):
    """Returns float32 `[7, V]`, not normalised: flat, peaked, sparse and one-hot ones."""
    rng = np.random.default_rng(vocab)
    sparse = rng.uniform(size=vocab) * (rng.uniform(size=vocab) < 0.05)
    sparse[rng.integers(vocab)] += 0.1
    rows = [
        np.ones(vocab),
        rng.uniform(size=vocab),
        softmax(3 * rng.normal(size=vocab)),
        1e-5 * softmax(8 * rng.normal(size=vocab)),
        sparse,
        np.arange(vocab) == 0,
        np.arange(vocab) == vocab - 1,
    ]
    return np.stack(rows).astype(np.float32)


@pytest.mark.parametrize("vocab", [1, 2, 3, 1000, 49152])
def test_draw_inverts_the_cumulative_sum(vocab):
    weights = weights_of(vocab)
    uniforms = np.random.default_rng(1).uniform(size=30).astype(np.float32)
    uniforms = np.append(uniforms, np.float32([0, 2**-24, 2**-12, 0.5, 1 - 2**-12, TOP]))
    each = jax.vmap(draw, in_axes=(None, 0))  # [U, R]
    ids = np.asarray(jax.jit(each)(weights, np.repeat(uniforms[:, None], len(weights), 1)))
    assert ids.dtype == np.int32 and ids.min() >= 0 and ids.max() < vocab
    cumulative = np.cumsum(weights.astype(np.float64), -1)
    cumulative /= cumulative[:, -1:]
    for row in range(len(weights)):
        chosen = ids[:, row]
        assert np.all(weights[row, chosen] > 0)
        above = cumulative[row, chosen]
        below = above - weights[row, chosen] / weights[row].sum(dtype=np.float64)
        assert np.all((uniforms >= below - 1e-6) & (uniforms <= above + 1e-6))
        assert np.all(np.diff(chosen[np.argsort(uniforms)]) >= 0)
        # At u = 0 the first that has weight.
        assert chosen[-6] == np.flatnonzero(weights[row])[0]


def test_draw_is_exact_where_arithmetic_is():
    weights = np.random.default_rng(0).integers(0, 4, size=(8, 61)).astype(np.float32)
    weights[:, 60] += 128 - weights.sum(-1)  # a total of 2**7: every product below is exact
    uniforms = np.arange(256, dtype=np.float32) / 256
    found = jax.jit(jax.vmap(draw, in_axes=(None, 0)))(weights, np.repeat(uniforms[:, None], 8, 1))
    for row in range(8):
        expected = np.searchsorted(np.cumsum(weights[row]), uniforms * 128, side="right")
        np.testing.assert_array_equal(found[:, row], expected)


def test_draw_takes_any_leading_axes():
    weights = np.eye(5, dtype=np.float32)[np.array([[0, 4, 2], [1, 1, 3]])]
    np.testing.assert_array_equal(
        jax.jit(draw)(weights, np.full((2, 3), 0.7, np.float32)), [[0, 4, 2], [1, 1, 3]]
    )


@pytest.mark.parametrize(("vocab", "count"), [(8, 8), (1000, 4), (49152, 2)])
def test_sharded_draw_inverts_the_whole_sum(vocab, count):
    weights = weights_of(vocab)
    uniforms = np.random.default_rng(1).uniform(size=30).astype(np.float32)
    uniforms = np.append(uniforms, np.float32([0, 2**-24, 0.5, 1 - 2**-12, TOP]))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("vocab",))
    sharded = jax.shard_map(
        lambda w, u: jax.vmap(lambda u: draw(w, u, Vocab("vocab")))(u),
        mesh=mesh,
        in_specs=(P(None, "vocab"), P()),
        out_specs=P(),
    )
    ids = np.asarray(jax.jit(sharded)(weights, np.repeat(uniforms[:, None], len(weights), 1)))
    cumulative = np.cumsum(weights.astype(np.float64), -1)
    cumulative /= cumulative[:, -1:]
    for row in range(len(weights)):
        chosen = ids[:, row]
        assert np.all(weights[row, chosen] > 0)
        above = cumulative[row, chosen]
        below = above - weights[row, chosen] / weights[row].sum(dtype=np.float64)
        assert np.all((uniforms >= below - 1e-6) & (uniforms <= above + 1e-6))
