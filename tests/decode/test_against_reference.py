"""Tiny real models: a cached decode is what a recomputation without any cache gives."""

import functools

import jax
import numpy as np
import pytest

from speccascade.decode import generate, trace
from tests.decode import reference, toys

each_case = pytest.mark.parametrize(
    ("pair", "name"),
    [*toys.VERIFIED, *((family, "spec") for family in toys.PAIRS)],
    indirect=["pair"],
)
decoder_only = pytest.mark.parametrize("pair", ["decoder_only"], indirect=True)


@functools.cache
def case(pair: toys.Pair, name: str):
    """Returns decoder, parameters, rules and rows: every rule under a verifier, or spec alone.

    Alone, spec needs no q at the bonus position: the drafter's cache is then filled another way.
    """
    if name == "spec":
        rows = toys.mixed_rows(seed=5, rule_index=0)
        return pair.spec_decoder, pair.close_params, toys.SPEC, rows
    return pair.decoder(name), pair.params, toys.all_rules(), toys.mixed_rows()


@functools.cache
def expected(pair: toys.Pair, name: str) -> reference.Decoded:
    return reference.decode(*case(pair, name))


@each_case
def test_decode_equals_recomputation(pair, name):
    reference.check(generate(*case(pair, name)), expected(pair, name))


@each_case
def test_the_batch_meets_every_case(pair, name):
    rows, blocks = case(pair, name)[3], expected(pair, name).blocks
    accepted = np.concatenate([b.accepted[b.active & (b.length == toys.SIZE)] for b in blocks])
    assert set(accepted) == set(range(toys.SIZE + 1))
    lengths = np.asarray(rows.prompt_length)
    assert lengths.min() == 1 and lengths.max() == toys.SLOTS
    assert max(len(t) for t in expected(pair, name).tokens) > 3 * pair.horizon
    assert sum(b.active.any() for b in blocks) > 5
    # Rows that ended before their block's last kept token, and rows that ran out of room in one.
    short = [(b.emitted < b.accepted + 1) & b.active for b in blocks]
    assert sum((s & b.ended).sum() for s, b in zip(short, blocks, strict=True)) > 3
    assert sum((s & ~b.ended).sum() for s, b in zip(short, blocks, strict=True)) > 3
    # Full acceptance followed by another block: its last draft token is in both caches.
    after_full = [
        (a.active & (a.accepted == toys.SIZE) & b.active).sum()
        for a, b in zip(blocks, blocks[1:], strict=False)
    ]
    assert sum(after_full) > 10
    if name != "spec":
        assert sum((b.active & (b.length < toys.SIZE)).sum() for b in blocks) > 5


@decoder_only  # of the loop that `generate` runs, step by step
def test_trace_equals_recomputation_and_generate(pair):
    records = list(trace(*case(pair, "token")))
    reference.check_records(records, expected(pair, "token"))
    state, output = jax.device_get((records[-1][0], generate(*case(pair, "token"))))
    np.testing.assert_array_equal(state.count, output.num_tokens)
    tokens = np.asarray(state.tokens)
    for b, n in enumerate(output.num_tokens):
        np.testing.assert_array_equal(tokens[b, :n], output.tokens[b, :n])
    np.testing.assert_array_equal(state.invalid, output.invalid)
    for name, whole in output.stats.by_name().items():
        np.testing.assert_allclose(state.stats.by_name()[name], whole, atol=1e-4)


@each_case
def test_counts_are_consistent(pair, name):
    stats = jax.tree.map(np.asarray, generate(*case(pair, name)).stats)
    own = stats.emitted - stats.accepted  # made by the expert: at most one a block
    assert np.all((own >= 0) & (own <= stats.expert_calls))
    assert np.all(stats.accepted <= stats.tested) and np.all(stats.tested <= stats.drafted)
    assert np.all(stats.rejected <= stats.expert_calls)
    np.testing.assert_array_equal(stats.accepted + stats.rejected, stats.tested)
    ran = stats.expert_calls > 0
    per_call = stats.emitted[ran] / stats.expert_calls[ran]
    assert np.all((per_call >= 1) & (per_call <= toys.SIZE + 1))
    assert np.all(stats.tv_sum <= stats.tested + 1e-4)
    has_r = ~np.isnan(stats.deferral_sum)
    assert np.all(stats.deferral_sum[has_r] <= stats.emitted[has_r] + 1e-4)
    assert all(np.all(values[~ran] == 0) for values in stats.by_name().values())
    if name == "spec":
        assert not has_r[ran].any()


def test_a_drafter_that_is_the_expert_is_always_accepted(pair):
    expert = pair.params["expert"]
    rows = toys.mixed_rows(
        rule_index=0,
        stop_table=toys.NEVER,
        max_new_tokens=toys.ROOM,
        drafter_truncation=toys.NO_TRUNCATION,
        expert_truncation=toys.NO_TRUNCATION,
    )
    out = generate(pair.spec_decoder, {"drafter": expert, "expert": expert}, toys.SPEC, rows)
    np.testing.assert_array_equal(out.stats.rejected, 0)
    np.testing.assert_array_equal(out.stats.expert_calls, toys.ROOM / (toys.SIZE + 1))
