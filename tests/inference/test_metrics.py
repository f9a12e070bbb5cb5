import dataclasses
import json
import math

import numpy as np
import pytest

from speccascade.inference import metrics
from speccascade.inference.methods import DRAFTER, SPECULATIVE, TOKEN_CASCADE
from speccascade.inference.setting import Setting
from speccascade.tasks.aggregate import mean


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    scores = np.random.default_rng(1).random(400)
    low, high = metrics.bootstrap(mean, scores, resamples=4000)
    half = 1.96 * scores.std() / math.sqrt(len(scores))
    assert low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(scores.mean() + half, abs=0.1 * half)


def test_bootstrap_of_paired_differences_agrees_with_the_normal_interval():
    rng = np.random.default_rng(2)
    base = (rng.random(500) < 0.6).astype(float)
    other = np.where(rng.random(500) < 0.1, 1 - base, base)  # they differ on a tenth
    low, high = metrics.bootstrap(metrics.difference(mean), other, base, resamples=4000)
    difference = other - base
    half = 1.96 * difference.std() / math.sqrt(500)
    assert (low + high) / 2 == pytest.approx(difference.mean(), abs=0.15 * half)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    # Unpaired, the interval would be more than twice as wide.
    assert high - low < 0.5 * 2 * 1.96 * math.sqrt(2 * 0.24 / 500)


def test_bootstrap_is_repeatable_and_exact_for_equal_scores():
    scores = np.random.default_rng(3).random(20)
    assert metrics.bootstrap(mean, scores) == metrics.bootstrap(mean, scores)
    assert metrics.bootstrap(metrics.difference(mean), scores, scores) == (0.0, 0.0)
    assert metrics.bootstrap(mean, [1.0]) == (1.0, 1.0)


def test_bootstrap_draws_whole_examples():
    # The ratio of two counts is 2 whichever examples are drawn, and only if they stay together.
    counts = np.random.default_rng(4).integers(1, 9, size=(30, 1)) * [2.0, 1.0]

    def ratio(values):
        total = values.sum(-2)
        return total[..., 0] / total[..., 1]

    assert metrics.bootstrap(ratio, counts) == (2.0, 2.0)
    assert metrics.bootstrap(metrics.difference(ratio), counts, counts) == (0.0, 0.0)


def test_speedup_is_a_ratio_of_times_per_token():
    # 4 ms a token against the expert's 10, over answers of different lengths.
    ms, tokens = np.array([40.0, 8.0]), np.array([10.0, 2.0])
    expert_ms, expert_tokens = np.array([100.0, 50.0]), np.array([10.0, 5.0])
    assert metrics.speedup(ms, tokens, expert_ms, expert_tokens) == pytest.approx(2.5)
    low, high = metrics.bootstrap(metrics.speedup, ms, tokens, expert_ms, expert_tokens)
    assert low == pytest.approx(2.5) and high == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.1, 0.2), "better"),
        ((-0.2, -0.1), "worse"),
        ((-0.1, 0.1), "not told apart"),
        ((0.0, 0.1), "not told apart"),
        ((-0.1, 0.0), "not told apart"),
        ((0.0, 0.0), "not told apart"),
    ],
)
def test_verdict(interval, word):
    assert metrics.verdict(interval) == word
    assert metrics.verdict(tuple(1 + x for x in interval), zero=1.0) == word


COUNTS = {
    "emitted": 12.0,
    "expert_calls": 4.0,
    "drafter_calls": 24.0,
    "middle_calls": 6.0,
    "drafted": 20.0,
    "accepted": 8.0,
    "tested": 10.0,
    "rejected": 2.0,
    "tv_sum": 3.0,
    "deferral_sum": 5.0,
    **{f"kept_{i}": count for i, count in enumerate((1.0, 0.0, 1.0, 2.0, 0.0, 0.0))},
}


TOKEN = Setting(SPECULATIVE, "spec", draft_length=5, verifier="token")


def test_rates_of_the_token_verifier():
    assert metrics.rates(COUNTS, TOKEN) == {
        "tokens_per_expert_call": 3.0,
        "rejection_rate": 0.2,
        "tv_mean": 0.3,
        "deferral_rate": 5 / 12,
        "acceptance_of_drafted": 0.4,
        "acceptance_by_position": [0.75, 0.75, 0.5, 0.0, 0.0],
        "drafter_calls": 24,
        "middle_calls": 6,
        "expert_calls": 4,
        "tokens": 12,
    }


def test_what_a_method_lacks_is_null():
    block = metrics.rates(COUNTS, dataclasses.replace(TOKEN, verifier="block"))
    assert (block["rejection_rate"], block["tv_mean"]) == (None, None)
    assert block["tokens_per_expert_call"] == 3.0
    no_rule = {**COUNTS, "deferral_sum": math.nan, "rejected": math.nan, "tv_sum": math.nan}
    cascade = metrics.rates(no_rule, Setting(TOKEN_CASCADE, "chow"))
    assert cascade["tokens_per_expert_call"] is None and cascade["deferral_rate"] is None
    alone = {**dict.fromkeys(COUNTS, 0.0), "emitted": 9.0, "deferral_sum": math.nan}
    drafter = metrics.rates(alone, Setting(DRAFTER))
    assert drafter["tokens_per_expert_call"] is None and drafter["deferral_rate"] is None
    older = {name: math.nan if "kept" in name else count for name, count in COUNTS.items()}
    without = {name: count for name, count in COUNTS.items() if "kept" not in name}
    found = [metrics.rates(counts, TOKEN) for counts in (older, without)]
    assert [rates["acceptance_by_position"] for rates in found] == [None, None]
    assert "NaN" not in json.dumps([block, cascade, drafter, *found])
