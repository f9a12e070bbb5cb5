"""Rows that are given the next prompt become what they become in a batch of their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speccascade import rules
from speccascade.decode import (
    CascadeDrafter,
    Decoder,
    LookupDrafter,
    NoDrafter,
    generate,
    make_rows,
    refill,
    stream,
)
from speccascade.decode.refill import Batch, rows_at_once
from speccascade.errors import UserError
from tests.decode import toys

COUNT, SLOTS = 26, 8  # four rows at a time: from there on a row's sums do not hang on the others
VOCAB, ROOM = 5, 9
TABLE = toys.Table(VOCAB)


def taken(rows, made, indices):
    """Returns rules and rows of some of a batch's prompts."""
    index = np.asarray(indices)
    rest = rows._replace(stop_table=np.zeros(len(rows.prompt)))
    rows, made = jax.tree.map(lambda x: np.asarray(x)[index], (rest, made))
    return made, rows


def streamed(decoder, params, made, rows, slots, order=None):
    """Decodes a batch's rows as a stream, in another order where one is given; by their index."""
    order = np.arange(len(rows.prompt)) if order is None else order

    def make(indices):
        rules, own = taken(rows, made, order[np.asarray(indices)])
        return rules, own._replace(stop_table=rows.stop_table)

    parts = list(stream(decoder, params, make, len(order), slots))
    assert all(parts) and sum(map(len, parts)) == len(order)
    found = {int(order[a.index]): a for part in parts for a in part}
    assert found.keys() == set(range(len(order)))
    return found


def assert_same(found, batch):
    """Asserts that every row of a stream is that of a batch."""
    batch = jax.device_get(batch)
    for i, answer in found.items():
        own, n = answer.output, batch.num_tokens[i]
        assert own.tokens[: own.num_tokens].tolist() == batch.tokens[i, :n].tolist()
        for name in ("num_tokens", "finished", "invalid"):
            assert getattr(own, name) == getattr(batch, name)[i]
        for name in ("logprob", "expert_logprob"):
            values = getattr(own, name)[:n], getattr(batch, name)[i, :n]
            np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5)
        counts = own.stats.by_name(), batch.stats.by_name()
        for name, count in counts[0].items():
            np.testing.assert_allclose(count, counts[1][name][i], rtol=1e-4, atol=1e-5)


def knobs(seed=0):
    """Returns a rule that uses q and one that ends drafts, with knobs per row."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.1, 0.6, COUNT)
    bild = rules.make("bild", alpha=rng.uniform(2, 5, COUNT), fallback=np.full(COUNT, 0.45))
    return rules.make("token_v3", alpha=alpha), bild


slow = pytest.mark.slow


@pytest.fixture(
    scope="module", params=["decoder_only", pytest.param("encoder_decoder", marks=slow)]
)
def pair(request):
    return toys.PAIRS[request.param]


@pytest.fixture(scope="module")
def case(pair):
    """Returns a program, its parameters, rules and rows: every temperature, length and limit."""
    rng = np.random.default_rng(2)
    limits = rng.integers(1, toys.ROOM + 1, COUNT)
    limits[[1, 5, 20]] = 0, toys.ROOM, toys.ROOM
    rows = make_rows(
        toys.prompts(count=COUNT),
        stop_table=toys.STOP_TABLE,
        max_new_tokens=limits,
        prompt_slots=toys.SLOTS,
        temperature=rng.choice([0.0, 1.0], COUNT),
        seed=rng.integers(0, 3, COUNT),
        example_ids=rng.permutation(100)[:COUNT],
        rule_index=np.arange(COUNT) % 2,
        expert_truncation=toys.mixed_truncations(3, COUNT),
    )
    return pair.decoder("token"), pair.params, knobs(), rows


@pytest.fixture(scope="module")
def fixed(case):
    return generate(*case)


def test_a_stream_is_the_batch_whatever_the_order(case, fixed):
    assert np.ptp(fixed.num_tokens) == toys.ROOM and 0 < np.mean(fixed.finished) < 1
    assert_same(streamed(*case, SLOTS), fixed)
    order = np.random.default_rng(5).permutation(COUNT)
    assert_same(streamed(*case, SLOTS, order), fixed)


def test_a_row_leaves_nothing_behind(case, fixed):
    """Caches full of NaN are given to rows without: what they cannot see is multiplied by 0."""
    decoder, params, made, rows = case
    token = int(rows.prompt[0, 0])
    poisoned = jax.tree.map(jnp.asarray, params)
    for role, own in poisoned.items():
        if "head" in own:  # elsewhere the embedding is the head too, and all logits are NaN
            table = own["embedding"].at[token].set(jnp.nan)
            poisoned[role] = {**own, "embedding": table}
    batch = generate(decoder, poisoned, made, rows)
    met, asked = np.asarray(batch.invalid), rows.max_new_tokens > 0
    assert met.any() and not met[asked].all()
    assert_same(streamed(decoder, poisoned, made, rows, SLOTS), batch)


def test_time_is_shared_by_the_rows_at_work(case):
    seconds = [a.seconds for a in streamed(*case, SLOTS).values()]
    assert min(seconds) > 0
    # An answer that asked for most waited for more than one that asked for nothing.
    assert max(seconds) > 2 * min(seconds)


def test_refill_writes_the_rows_that_it_is_told_to(case):
    decoder, params, made, rows = case
    own, first = taken(rows, made, range(4))
    first = first._replace(stop_table=rows.stop_table)
    batch = refill.begin(decoder, SLOTS, params, (own, first), np.arange(SLOTS) < 3)
    assert np.asarray(batch.state.done)[3:].all()
    before = jax.device_get(batch)
    fresh = taken(rows, made, [9, 10, 11, 12])
    fresh = fresh[0], fresh[1]._replace(stop_table=())
    batch = refill.refill(decoder, params, batch, fresh, np.array([6, SLOTS, 2, SLOTS]))
    after = jax.device_get(batch)
    np.testing.assert_array_equal(after.rows.stop_table, rows.stop_table)
    assert after.rows.example_id[[6, 2]].tolist() == rows.example_id[[9, 11]].tolist()

    def others(batch: Batch):
        rest = batch._replace(rows=batch.rows._replace(stop_table=()))
        return jax.tree.leaves(jax.tree.map(lambda x: x[[0, 1, 3, 4, 5, 7]], rest))

    for new, old in zip(others(after), others(before), strict=True):
        np.testing.assert_array_equal(new, old)


def test_how_many_rows_a_prefill_fills():
    assert [rows_at_once(slots) for slots in (1, 3, 4, 16, 64)] == [1, 3, 4, 4, 8]


# ---- other drafters, on tables: their sums are of one row whatever the batch ----

DRAFTERS = {
    "alone": (NoDrafter(), 0, "spec"),
    "lookup": (LookupDrafter(), 2, "token_v3"),
    "cascade": (CascadeDrafter(TABLE, TABLE, 2), 3, "opt"),
}


@slow
@pytest.mark.parametrize(
    ("name", "slots"), [("alone", 5), ("lookup", 1), ("lookup", 5), ("cascade", 5)]
)
def test_every_drafter(name, slots):
    drafter, size, rule = DRAFTERS[name]
    rng = np.random.default_rng(4)
    tables = toys.tables(VOCAB, seed=1)
    own = ()
    if name == "cascade":
        own = {"drafter": tables["drafter"], "middle": toys.tables(VOCAB, seed=2)["expert"]}
    count = 11

    def knob():
        return {"alpha": rng.uniform(0.1, 0.6, count)}

    made = (rules.make(rule, **(knob() if rule != "spec" else {})),)
    rows = make_rows(
        [rng.integers(0, VOCAB, n).tolist() for n in rng.integers(1, 7, count)],
        stop_table=np.where(np.arange(VOCAB) == 4, -1, 0)[None].astype(np.int32),
        max_new_tokens=rng.integers(1, ROOM + 1, count),
        prompt_slots=6,
        temperature=rng.choice([0.0, 1.0], count),
        drafting=rules.make("token_v3", **knob()) if name == "cascade" else None,
    )
    decoder = Decoder(TABLE, drafter, size, ROOM)
    params = {"drafter": own, "expert": tables["expert"]}
    assert_same(streamed(decoder, params, made, rows, slots), generate(decoder, params, made, rows))


def test_what_does_not_fit_is_refused(case):
    decoder, params, made, rows = case
    small = dataclasses.replace(decoder, max_new_tokens=toys.ROOM - 1)
    with pytest.raises(UserError, match=f"a row asks for {toys.ROOM} new tokens"):
        streamed(small, params, made, rows, SLOTS)
    make = functools.partial(pytest.fail, "nothing is asked for")
    assert list(stream(decoder, params, make, 0, SLOTS)) == []
