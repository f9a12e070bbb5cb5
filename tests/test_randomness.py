"""Random numbers: uniform, and keyed by seed, example, block start, role and offset alone."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade import randomness
from speccascade.errors import UserError
from speccascade.randomness import Role, RowKeys, uniforms, uniforms_by_role, words

EDGES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64, 2**64 + 1, 10**40]
SEEDS = EDGES + [-seed for seed in EDGES if seed]


def rows_of(seeds):
    return np.array([words(seed) for seed in seeds])


@pytest.fixture(scope="module")
def draws():
    """Returns uniforms of all combinations, `[seed, example, start, role, offset]`."""
    ranges = [range(3), range(40), range(30)]
    seed, example, start = np.array(list(itertools.product(*ranges)), np.int32).T
    keys = RowKeys(rows_of(seed), example)
    every = [uniforms(keys, start, role, 5) for role in Role]
    return np.stack(every, 1).reshape(3, 40, 30, len(Role), 5)


def test_draws_are_uniform_on_the_half_open_interval(draws):
    assert draws.min() >= 0 and draws.max() < 1
    n = draws.size
    # Kolmogorov-Smirnov: beyond 3.6 with a probability below 1e-10.
    steps = np.abs(np.sort(draws.ravel()) - np.arange(n) / n).max()
    assert steps * np.sqrt(n) < 3.6


def test_every_part_of_the_key_matters(draws):
    # 24-bit uniforms coincide by chance: about n^2 / 2^25 pairs, here 87 of 54,000.
    assert draws.size - np.unique(draws).size < 250
    centred = draws - draws.mean()
    for axis in range(draws.ndim):
        one = np.take(centred, range(draws.shape[axis] - 1), axis)
        following = np.take(centred, range(1, draws.shape[axis]), axis)
        correlation = (one * following).mean() / centred.var()
        assert abs(correlation) < 6.5 / np.sqrt(one.size), axis


def test_a_position_drafted_again_gets_fresh_noise(draws):
    # The draw for a token's position differs by the block that it is in.
    for back in range(1, 5):
        now, then = draws[..., back:, :, 0], draws[..., :-back, :, back]
        assert np.all(now != then) or np.mean(now == then) < 1e-3


def test_the_place_in_the_batch_does_not_matter(draws):
    seed = np.array([2, 0, 1, 2], np.int32)
    example = np.array([7, 39, 0, 8], np.int32)
    start = np.array([29, 0, 3, 29], np.int32)
    found = uniforms(RowKeys(rows_of(seed), example), start, Role.ACCEPT, 5)
    np.testing.assert_array_equal(found, draws[seed, example, start, Role.ACCEPT])
    jitted = jax.jit(uniforms, static_argnums=(2, 3))
    alone = jitted(RowKeys(rows_of(seed[1:2]), example[1:2]), start[1:2], Role.ACCEPT, 5)
    np.testing.assert_array_equal(alone, found[1:2])


def test_a_draw_is_that_of_its_key_whatever_is_drawn_with_it():
    seeds, ids, start = [3, 2**40], np.array([7, 0], np.int32), np.array([0, 29], np.int32)
    counts = {Role.DRAFT: 5, Role.ACCEPT: 0, Role.TOKEN: 2}
    found = uniforms_by_role(RowKeys(rows_of(seeds), ids), start, counts)
    assert found.keys() == counts.keys()
    for role, count in counts.items():
        for row in range(2):
            key = randomness.key(seeds[row])
            for data in (int(ids[row]), int(start[row]), int(role)):
                key = jax.random.fold_in(key, data)
            np.testing.assert_array_equal(found[role][row], jax.random.uniform(key, (count,)))


def test_extreme_ids_have_keys():
    ids = np.array([0, -1, 2**31 - 1, -(2**31)], np.int32)
    found = uniforms(RowKeys(rows_of(ids), ids[::-1]), np.zeros(4, np.int32), Role.DRAFT, 3)
    assert np.unique(found).size == found.size


@given(st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 2**31 - 1])))
def test_a_seed_of_31_bits_has_the_key_that_jax_makes_of_it(seed):
    expected = jax.random.key_data(jax.random.key(seed))
    np.testing.assert_array_equal(jax.random.key_data(randomness.key(seed)), expected)
    np.testing.assert_array_equal(words(seed), expected)


@given(st.lists(st.one_of(st.integers(), st.sampled_from(SEEDS)), unique=True, max_size=40))
def test_different_seeds_have_different_keys(seeds):
    assert len({tuple(words(seed)) for seed in seeds}) == len(seeds)
    assert all(0 <= randomness.folded(seed) < 2**64 for seed in seeds)


def test_the_draws_of_edge_seeds_differ():
    every = np.array([words(seed) for seed in SEEDS])
    zeros = np.zeros(len(SEEDS), np.int32)
    draws = np.asarray(uniforms(RowKeys(every, zeros), zeros, Role.DRAFT, 4))
    assert np.unique(draws, axis=0).shape == draws.shape


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.uint32, np.int64, np.uint64, np.array])
def test_a_seed_means_the_same_in_any_type(kind):
    assert randomness.folded(kind(100)) == 100
    if kind in (np.int32, np.int64):
        assert randomness.folded(kind(-5)) == randomness.folded(-5)


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, np.float32(2), "3", None, [1], np.nan])
def test_what_is_no_whole_number_is_no_seed(seed):
    with pytest.raises(UserError, match="^train.seed=.* must be a whole number$"):
        randomness.folded(seed, "train.seed")
