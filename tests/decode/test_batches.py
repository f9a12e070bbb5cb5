"""Rows of a batch: each for itself, wherever it stands, as far as it asked, in one program."""

import functools

import jax
import numpy as np
import pytest

from speccascade.decode import generate, loop
from speccascade.decode.stopping import STOP
from tests.decode import toys


@pytest.fixture(scope="module")
def decode(pair):
    return functools.partial(generate, pair.decoder("token"), pair.params)


@pytest.fixture(scope="module")
def endless(decode):
    """Returns the mixed batch without ends or limits: rules, rows and texts."""
    made = toys.all_rules()
    rows = toys.mixed_rows(stop_table=toys.NEVER, max_new_tokens=toys.ROOM)
    out = decode(made, rows)
    assert np.all(np.asarray(out.num_tokens) == toys.ROOM) and not np.asarray(out.finished).any()
    return made, rows, toys.texts(out)


def test_the_place_in_the_batch_does_not_matter(decode, endless):
    made, rows, _ = endless
    order = np.random.default_rng(1).permutation(toys.BATCH)
    table = rows.stop_table
    moved = jax.tree.map(lambda x: x[order], rows._replace(stop_table=np.zeros(toys.BATCH)))
    out = decode(made, rows)
    again = decode(jax.tree.map(lambda x: x[order], made), moved._replace(stop_table=table))
    for name in ("tokens", "logprob", "expert_logprob"):
        np.testing.assert_array_equal(
            np.asarray(getattr(again, name))[:, : toys.ROOM],
            np.asarray(getattr(out, name))[order, : toys.ROOM],
            err_msg=name,
        )
    for name, whole in out.stats.by_name().items():
        np.testing.assert_array_equal(again.stats.by_name()[name], np.asarray(whole)[order])


def test_neighbours_do_not_matter(decode, endless):
    made, rows, expected = endless
    mine = np.arange(toys.BATCH) % 3 == 0
    other = toys.mixed_rows(seed=9, max_new_tokens=np.arange(toys.BATCH) % 7)
    others_rules = toys.all_rules(seed=8)

    def mix(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return np.where(mine.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    table = rows.stop_table
    both = jax.tree.map(
        mix, rows._replace(stop_table=mine), other._replace(stop_table=mine)
    )._replace(stop_table=table)
    found = toys.texts(decode(jax.tree.map(mix, made, others_rules), both))
    for b in np.flatnonzero(mine):
        assert found[b] == expected[b]
    assert any(found[b] != expected[b][: len(found[b])] for b in np.flatnonzero(~mine))


def test_seeds_and_examples_change_sampled_rows(decode, endless):
    made, rows, expected = endless
    sampled = np.asarray(rows.temperature) == 1
    for change in ({"seed": rows.seed + 1}, {"example_id": rows.example_id + 1}):
        found = toys.texts(decode(made, rows._replace(**change)))
        same = np.array([a == b for a, b in zip(found, expected, strict=True)])
        assert same[sampled].mean() < 0.3
        greedy = np.asarray(rows.temperature) == 0
        greedy &= np.asarray(rows.rule_index) != toys.NAMES.index("mixture")
        assert same[greedy].all() and greedy.any()


def test_a_limit_cuts_a_text_short_and_changes_nothing_else(decode, endless):
    made, rows, expected = endless
    limits = np.arange(toys.BATCH) % (toys.ROOM + 1)
    out = decode(made, rows._replace(max_new_tokens=limits.astype(np.int32)))
    for b, n in enumerate(limits):
        assert toys.texts(out)[b] == expected[b][:n]
    idle = limits == 0
    assert all(np.all(np.asarray(x)[idle] == 0) for x in out.stats.by_name().values())
    assert not np.asarray(out.finished).any()


def test_a_text_ends_at_its_first_stop_and_changes_nowhere_before(decode, endless):
    made, rows, expected = endless
    out = decode(made, rows._replace(stop_table=toys.STOP_TABLE))
    ended = 0
    for b, whole in enumerate(expected):
        state, end = 0, None
        text = b""
        for i, token in enumerate(whole):
            text += toys.token_bytes(token)
            state = toys.STOP_TABLE[state, token]
            by_search = token in toys.STOPS["eos_ids"] or any(
                s.encode() in text for s in toys.STOPS["stop_strings"]
            )
            assert (state == STOP) == by_search
            if by_search:
                end, ended = i + 1, ended + 1
                break
        assert toys.texts(out)[b] == whole[:end]
        assert bool(out.finished[b]) == (end is not None)
    assert toys.BATCH > ended > toys.BATCH / 4


def test_a_stop_at_the_last_token_of_the_room_counts_as_finished(decode, endless):
    made, rows, _ = endless
    free = decode(made, rows._replace(stop_table=toys.STOP_TABLE))
    ends, length = np.asarray(free.finished), np.asarray(free.num_tokens)
    for room, finished in ((length, ends), (np.maximum(length - 1, 0), np.zeros_like(ends))):
        limits = np.where(ends, room, 0).astype(np.int32)
        out = decode(made, rows._replace(stop_table=toys.STOP_TABLE, max_new_tokens=limits))
        np.testing.assert_array_equal(out.num_tokens, limits)
        np.testing.assert_array_equal(out.finished, finished)


def test_no_value_of_a_batch_recompiles(decode, endless):
    made, rows, _ = endless
    programs = loop.run._cache_size(), loop.prefill._cache_size()
    changed = toys.mixed_rows(seed=31)
    decode(toys.all_rules(seed=5), changed)
    decode(toys.all_rules(seed=6), changed._replace(temperature=np.zeros_like(changed.temperature)))
    assert (loop.run._cache_size(), loop.prefill._cache_size()) == programs


def test_arguments_survive_a_decode(pair, endless):
    # The loop donates its state; the caller's arrays are not part of it.
    made, rows, expected = endless
    on_device = jax.tree.map(jax.numpy.asarray, (pair.params, made, rows))
    for _ in range(2):
        params, device_rules, device_rows = on_device
        out = generate(pair.decoder("token"), params, device_rules, device_rows)
        assert toys.texts(out) == expected
