"""Reductions over the vocabulary: numpy's on whole arrays, and the same on shards."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from speccascade.vocab import WHOLE, Vocab

REDUCTIONS = ("max", "sum", "first_argmax")


@functools.cache
def inputs():
    """Returns float32 [R, V] with ties, also across the shards, and infinities."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, size=(40, 8)).astype(np.float32)
    x[:10] = rng.normal(size=(10, 8))
    x[10:15] = np.where(rng.uniform(size=(5, 8)) < 0.5, -np.inf, x[10:15])
    x[10:15, 5] = 0
    x[15] = 1  # every token ties
    x[16] = [0, 1, 0, 0, 0, 1, 0, 0]  # the two largest lie in different shards
    return x


@pytest.mark.parametrize("name", REDUCTIONS)
def test_whole_reductions_are_numpys(name):
    x = inputs()
    oracle = {"max": np.max, "sum": np.sum, "first_argmax": np.argmax}[name]
    result = jax.jit(getattr(WHOLE, name))(x)
    assert result.shape == (len(x), 1)
    np.testing.assert_allclose(result[:, 0], oracle(x, -1), rtol=1e-6)


def test_first_argmax_is_an_int32_id():
    assert WHOLE.first_argmax(inputs()).dtype == np.int32


def test_ids():
    np.testing.assert_array_equal(WHOLE.ids(inputs()), np.arange(8))


def test_shards_reduce_as_the_whole():
    x, vocab = inputs(), Vocab("vocab")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("vocab",))

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=P(None, "vocab"),
        out_specs=(P(), P(), P(), P("vocab")),
    )
    def reduce(shard):
        return vocab.max(shard), vocab.sum(shard), vocab.first_argmax(shard), vocab.ids(shard)

    largest, total, first, ids = reduce(x)
    np.testing.assert_array_equal(largest, WHOLE.max(x))
    np.testing.assert_allclose(total, WHOLE.sum(x), rtol=1e-6)
    np.testing.assert_array_equal(first, WHOLE.first_argmax(x))
    np.testing.assert_array_equal(ids, np.arange(8))


def sharded(f, count, in_specs, out_specs):
    """Returns `f(vocab, *args)` compiled over `count` shards of the vocabulary."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("vocab",))
    return jax.jit(
        jax.shard_map(
            functools.partial(f, Vocab("vocab")), mesh=mesh, in_specs=in_specs, out_specs=out_specs
        )
    )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_values_at_ids(count):
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 8, size=(3, 5)).astype(np.int32)
    expected = np.take_along_axis(x, ids[..., None], -1)[..., 0]
    np.testing.assert_array_equal(WHOLE.at(x, ids), expected)
    at = sharded(Vocab.at, count, (P(None, None, "vocab"), P()), P())
    np.testing.assert_array_equal(at(x, ids), expected)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_of_a_table(count):
    table = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    ids = np.arange(8, dtype=np.int32)[::-1].reshape(2, 4)
    np.testing.assert_array_equal(WHOLE.rows(table, ids), table[ids])
    rows = sharded(Vocab.rows, count, (P("vocab"), P()), P())
    np.testing.assert_array_equal(rows(table, ids), table[ids])


def test_totals_and_the_choice_of_a_shard():
    def run(vocab, x):
        # Each shard chooses the index of its own least entry; the shard of the least total wins.
        totals = vocab.totals(x.sum(-1))
        choice = x.argmin(-1).astype(np.int32)
        return totals, vocab.from_shard(totals.argmin(-1), choice, x.shape[-1])

    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    totals, ids = sharded(run, 4, P(None, "vocab"), (P(), P()))(x)
    parts = x.reshape(20, 4, 2)
    np.testing.assert_allclose(totals, parts.sum(-1), rtol=1e-6)
    shard = parts.sum(-1).argmin(-1)
    np.testing.assert_array_equal(ids, 2 * shard + parts[np.arange(20), shard].argmin(-1))


def test_a_sum_that_stays_on_its_shard_is_refused():
    def run(vocab, x):
        return x.sum(-1)

    with pytest.raises(ValueError, match="vocab"):
        sharded(run, 2, P(None, "vocab"), P())(inputs())
