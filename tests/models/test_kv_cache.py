"""Rings of slots: what a token sees of them is what it sees of a slot for each position."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade.models.kv_cache import NEVER, LayerCache, Ring

BATCH, LAST, LONGEST = 3, 60, 6  # the longest block
LENGTHS = np.array([1, 14, 9], np.int32)


def empty(kind, slots):
    return kind(*(np.zeros((BATCH, 1, slots, 1), np.float32) for _ in range(2)))


@functools.partial(jax.jit, static_argnums=4)
def extend(cache, tokens, start, lengths, size):
    """Reads tokens, each of which is its own key and value; returns the cache and what is seen."""
    positions = start[:, None] + jnp.arange(size)
    new = tokens[:, :, None, None]
    return cache.extend(new, -new, positions, lengths)


def sees(seen, row, first, size, window):
    """Returns the tokens that queries from `first` on see, by position, as a list for each."""
    held = np.broadcast_to(seen.position_BL, (BATCH, seen.position_BL.shape[1]))[row]
    keys, values = (np.asarray(x)[row, 0, :, 0] for x in seen[:2])
    np.testing.assert_array_equal(keys, -values)
    found = []
    for at in range(first, first + size):
        visible = (held <= at) & (held > at - window)
        order = np.argsort(held[visible])
        found.append((held[visible][order].tolist(), keys[visible][order].tolist()))
    return found


def walk(ring, window, size, chunk, seed):
    """Reads prompts in chunks, then blocks of which a part is kept; returns whether all agrees.

    Rows go on up to `size` positions behind the newest that they ever wrote.
    """
    rng = np.random.default_rng(seed)
    full = empty(LayerCache, LAST + LONGEST)
    for start in range(0, LENGTHS.max() + 2, chunk):  # the last positions are padding in every row
        tokens = rng.uniform(1, 2, (BATCH, chunk)).astype(np.float32)
        at = np.full(BATCH, start, np.int32)
        full, wanted = extend(full, tokens, at, LENGTHS, chunk)
        ring, found = extend(ring, tokens, at, LENGTHS, chunk)
        for row, length in enumerate(LENGTHS):
            own = min(chunk, length - start)
            if sees(found, row, start, own, window) != sees(wanted, row, start, own, window):
                return False
    position, newest = LENGTHS - 1, LENGTHS - 1
    while position.min() < LAST:
        tokens = rng.uniform(1, 2, (BATCH, size)).astype(np.float32)
        full, wanted = extend(full, tokens, position, None, size)
        ring, found = extend(ring, tokens, position, None, size)
        for row, first in enumerate(position):
            if sees(found, row, first, size, window) != sees(wanted, row, first, size, window):
                return False
        newest = np.maximum(newest, position + size - 1)
        position = position + rng.integers(-1, size + 1, BATCH)
        position = np.maximum(np.maximum(position, newest - size), LENGTHS - 1)
        position = np.minimum(position, LAST).astype(np.int32)
    return True


@pytest.mark.parametrize(
    ("size", "window", "chunk"),  # N + 1 for N in 1..5; chunks that are shorter and longer than L
    [*((size, 5, 4) for size in range(2, 7)), (2, 1, 4), (3, 4, 16)],
)
def test_a_ring_shows_what_all_slots_would(size, window, chunk):
    ring = empty(Ring, window + size)
    assert all(walk(ring, window, size, chunk, seed) for seed in range(2))


@pytest.mark.parametrize("size", [2, 6])
def test_one_slot_less_is_too_few(size):
    window = 5
    assert walk(empty(Ring, window + size), window, size, 4, seed=0)
    assert not walk(empty(Ring, window + size - 1), window, size, 4, seed=0)


def test_what_was_never_written_is_not_seen():
    _, seen = extend(empty(Ring, 7), np.ones((BATCH, 2), np.float32), np.arange(BATCH), None, 2)
    held = [[0, 1] + [NEVER] * 5, [0, 1, 2] + [NEVER] * 4, [0, 1, 2, 3] + [NEVER] * 3]
    np.testing.assert_array_equal(seen.position_BL, held)


def test_a_lone_row_wraps_as_many_do():
    ring = Ring(*(np.arange(7, dtype=np.float32).reshape(1, 1, 7, 1) for _ in range(2)))
    new = np.full((1, 3, 1, 1), 9, np.float32)
    ring, _ = jax.jit(Ring.extend)(ring, new, new, np.array([[12, 13, 14]]))
    np.testing.assert_array_equal(ring.keys_BKLH[0, 0, :, 0], [9, 1, 2, 3, 4, 9, 9])
