"""Cascades without speculation: their texts and what they cost."""

import math

import numpy as np
import pytest

from speccascade import rules as rules_lib
from speccascade.decode import autoregressive, generate, sequence_cascade, token_cascade
from speccascade.decode.sequential import CATCH_UP
from speccascade.randomness import Role, RowKeys
from tests.decode import reference, toys


def chow(alpha) -> rules_lib.Rule:
    return rules_lib.make("chow", alpha=np.broadcast_to(np.asarray(alpha, float), toys.BATCH))


def by_token(pair, rule, rows):
    return token_cascade(pair.drafter, pair.expert, pair.params, rule, rows, toys.ROOM)


def recompute(pair, rule, rows):
    """Decodes a token cascade without any cache; returns tokens, logprobs and counts by row."""
    batch, slots = rows.prompt.shape
    text = np.concatenate([rows.prompt, np.zeros((batch, toys.ROOM + toys.SIZE), int)], 1)
    keys = RowKeys(rows.seed, rows.example_id)
    params, every = pair.params, np.arange(batch)
    tokens, logprobs = [[] for _ in every], [[] for _ in every]
    expert_calls, deferrals, read = np.zeros(batch), np.zeros(batch), np.zeros(batch, int)
    state, active = np.zeros(batch, int), rows.max_new_tokens > 0
    while active.any():
        count = np.array([len(t) for t in tokens], np.int32)
        at = (rows.prompt_length + count - 1)[:, None] + np.zeros(toys.SIZE + 1, int)
        q_logits, p_logits = (
            reference.logits_at(model, params[role], text, rows.prompt_length, at)[:, 0]
            for role, model in (("drafter", pair.drafter), ("expert", pair.expert))
        )
        confident = np.asarray(reference.confidence(q_logits)).max(-1)
        defers = confident < 1 - rule.knobs["alpha"]
        limits = rows.drafter_truncation, rows.expert_truncation
        q, p = (
            reference.distribution(logits, rows.temperature, limit)
            for logits, limit in zip((q_logits, p_logits), limits, strict=True)
        )
        pi = np.where(defers[:, None], p, q)
        drawn = np.asarray(reference.draw(pi, reference.noise(keys, count, Role.TOKEN, 1)[:, 0]))
        for b in np.flatnonzero(active):
            text[b, rows.prompt_length[b] + count[b]] = drawn[b]
            tokens[b].append(int(drawn[b]))
            logprobs[b].append(np.log(pi[b, drawn[b]]))
            if defers[b]:  # the expert reads what it has not, CATCH_UP tokens a pass
                expert_calls[b] += math.ceil((count[b] + 1 - read[b]) / CATCH_UP)
                read[b] = count[b] + 1
                deferrals[b] += 1
            state[b] = rows.stop_table[state[b], drawn[b]]
            active[b] = state[b] >= 0 and len(tokens[b]) < rows.max_new_tokens[b]
    return tokens, logprobs, expert_calls, deferrals


def test_token_cascade_equals_recomputation(pair):
    rule = chow(np.random.default_rng(0).uniform(0.4, 0.98, toys.BATCH))
    rows = toys.mixed_rows(seed=12, stop_table=toys.NEVER)
    out = by_token(pair, rule, rows)
    tokens, logprobs, expert_calls, deferrals = recompute(pair, rule, rows)
    assert toys.texts(out) == tokens
    for found, expected in zip(np.asarray(out.logprob), logprobs, strict=True):
        np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-4)
    emitted = [len(t) for t in tokens]
    stats = out.stats
    np.testing.assert_array_equal(stats.emitted, emitted)
    np.testing.assert_array_equal(stats.drafter_calls["drafter"], emitted)
    np.testing.assert_array_equal(stats.deferral_sum, deferrals)
    np.testing.assert_array_equal(stats.expert_calls, expert_calls)
    assert np.sum(expert_calls > deferrals) > 3  # it had to catch up with more than one pass
    ran = np.array(emitted) > 0
    for name in ("rejected", "tv_sum"):
        assert np.isnan(getattr(stats, name)[ran]).all()
    for name in ("drafted", "accepted", "tested"):
        np.testing.assert_array_equal(getattr(stats, name), 0)


@pytest.mark.parametrize(
    "pair",
    ["decoder_only", pytest.param("encoder_decoder", marks=pytest.mark.slow)],
    indirect=True,
)
def test_token_cascade_is_the_speculative_cascade_when_greedy(pair):
    alphas = np.linspace(0.1, 0.95, toys.BATCH)
    rows = toys.greedy_rows(toys.prompts(seed=6), rule_index=toys.NAMES.index("chow"))
    made = toys.all_rules([{"alpha": alpha} for alpha in alphas])
    found = by_token(pair, chow(alphas), rows)
    expected = generate(pair.decoder("token"), pair.params, made, rows)
    assert toys.texts(found) == toys.texts(expected)
    deferred = np.asarray(found.stats.deferral_sum)
    assert np.sum((deferred > 0) & (deferred < toys.ROOM)) > toys.BATCH / 3
    np.testing.assert_array_equal(expected.stats.deferral_sum, deferred)


def test_token_cascade_at_its_endpoints(pair, alone):
    rows, drafter, expert = alone
    for alpha, whole, calls in ((1.0, drafter, 0), (-0.01, expert, expert.num_tokens)):
        out = by_token(pair, chow(alpha), rows)
        assert toys.texts(out) == toys.texts(whole)
        np.testing.assert_array_equal(out.stats.expert_calls, calls)


# ---- sequence cascade ----


@pytest.fixture(scope="module")
def alone(pair):
    """Returns greedy rows, and what drafter and expert alone make of them."""
    rows = toys.greedy_rows(toys.prompts(seed=7), stop_table=toys.STOP_TABLE)
    made = (
        autoregressive(model, pair.params[role], rows, toys.ROOM, logprobs=True)
        for role, model in (("drafter", pair.drafter), ("expert", pair.expert))
    )
    return rows, *made


def by_sequence(pair, threshold, rows):
    return sequence_cascade(pair.drafter, pair.expert, pair.params, threshold, rows, toys.ROOM)


def test_sequence_cascade_at_its_endpoints(pair, alone):
    rows, drafter, expert = alone
    for threshold, whole, calls in ((1.0, expert, expert.stats.expert_calls), (-1e9, drafter, 0)):
        out = by_sequence(pair, threshold, rows)
        assert toys.texts(out) == toys.texts(whole)
        np.testing.assert_array_equal(out.finished, whole.finished)
        passes = out.stats.drafter_calls["drafter"]
        np.testing.assert_array_equal(passes, drafter.stats.expert_calls)
        np.testing.assert_array_equal(out.stats.expert_calls, calls)


def test_sequence_cascade_decides_row_by_row(pair, alone):
    rows, drafter, expert = alone
    counts = np.asarray(drafter.num_tokens)
    logprobs = np.asarray(drafter.expert_logprob)
    own = [x[:n] for x, n in zip(logprobs, counts, strict=True)]
    mean = np.array([x.mean() for x in own])
    threshold = np.median(mean) + np.linspace(-0.2, 0.2, toys.BATCH)
    out = by_sequence(pair, threshold, rows)
    defers = mean < threshold
    assert 5 < defers.sum() < toys.BATCH - 5
    texts = zip(toys.texts(drafter), toys.texts(expert), defers, strict=True)
    expected = [by_expert if d else by_drafter for by_drafter, by_expert, d in texts]
    assert toys.texts(out) == expected
    emitted = np.array([len(t) for t in expected])
    np.testing.assert_array_equal(out.stats.emitted, emitted)
    np.testing.assert_array_equal(out.stats.deferral_sum, np.where(defers, emitted, 0))
    np.testing.assert_array_equal(
        out.stats.expert_calls, np.where(defers, expert.stats.expert_calls, 0)
    )
