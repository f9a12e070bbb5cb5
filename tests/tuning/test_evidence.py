"""P-values that mean what they say: by enumeration, by closed forms and by simulation."""

import itertools
import math

import numpy as np
import pytest

from speccascade.tasks import aggregate
from speccascade.tuning.evidence import (
    CorpusLoss,
    MeanLoss,
    SpeedUp,
    bounded_mean_p_value,
    quality_loss,
    wanted,
)

# Laws of one example's loss, each with a mean of just what is promised: {loss: probability}.
BROKEN = [
    (0.25, {1.0: 0.25, 0.0: 0.75}),
    (0.25, {1.0: 0.5, 0.0: 0.25, -1.0: 0.25}),
    (0.05, {1.0: 0.05, 0.0: 0.95}),
    (0.5, {1.0: 0.75, -1.0: 0.25}),
    (0.1, {0.1: 1.0}),
    (0.0, {0.5: 0.5, -0.5: 0.5}),
]


def outcomes(law, size):
    """All ways in which `size` examples can come out, [K, size], with their probabilities [K]."""
    values = np.array(list(itertools.product(law, repeat=size)))
    return values, np.prod([[law[x] for x in row] for row in values], axis=-1)


def excess(p_value):
    """Returns how much more often than allowed a broken promise passes, at most."""
    found = []
    for promised, law in BROKEN:
        losses, probability = outcomes(law, 7)
        p = p_value(losses, promised)
        found += [probability[p <= t].sum() - t for t in np.unique(p)]
    return max(found)


def test_a_broken_promise_never_passes_more_often_than_its_p_value_says():
    assert excess(lambda losses, promised: bounded_mean_p_value(losses, promised, 1.0)) < 1e-9


def z_test(losses, promised):
    error = losses.std(-1) / math.sqrt(losses.shape[-1])
    z = (promised - losses.mean(-1)) / np.where(error > 0, error, 1e-9)
    return np.array([0.5 * math.erfc(x / math.sqrt(2)) for x in z])


def all_in(losses, promised):
    return np.minimum(1, np.prod((1 - promised) / (1 - losses + 1e-12), axis=-1) ** 2)


@pytest.mark.parametrize("mutant", [z_test, all_in])
def test_invalid_tests_are_told_from_valid_ones(mutant):
    assert excess(mutant) > 0.05


@pytest.mark.parametrize(("size", "promised"), [(20, 0.3), (200, 0.05), (1000, 0.01)])
def test_equal_answers_are_nearly_as_good_as_they_can_be(size, promised):
    # Without knowing the law nobody can do better than (1 - promised)^n: so likely is it that a
    # loss of 1 at that rate was never met. Not knowing the best bet costs no more than its square
    # root of n.
    p = MeanLoss(np.ones(size), np.ones(size), 1.0).p_value(promised)
    best = (1 - promised) ** size
    assert best <= p <= best * 2 * math.sqrt(math.pi * size)


def test_score_units_and_order_do_not_matter():
    rng = np.random.default_rng(0)
    scores, expert = rng.uniform(size=(2, 80))
    one = MeanLoss(scores, expert, 1.0)
    percent = MeanLoss(100 * scores[::-1], 100 * expert[::-1], 100.0)
    assert percent.p_value(20.0) == pytest.approx(one.p_value(0.2))
    assert percent.estimate == pytest.approx(100 * np.mean(expert - scores))
    assert quality_loss(scores, expert, 1.0, "mean").p_value(0.2) == one.p_value(0.2)


def test_pairs_count():
    # The same scores beside those of other examples say much less.
    rng = np.random.default_rng(1)
    expert = (rng.uniform(size=300) < 0.5).astype(float)
    scores = np.where(rng.uniform(size=300) < 0.01, 0.0, expert)
    assert MeanLoss(scores, expert, 1.0).p_value(0.1) < 1e-4
    assert MeanLoss(scores, rng.permutation(expert), 1.0).p_value(0.1) > 0.01


def bleu_like(rng, size, matches):
    """Statistics [size, 10] of answers of 8 words in which a share of the n-grams matches."""
    found = np.array([8, 7, 6, 5])
    correct = rng.binomial(found, matches, size=(size, 4))
    return np.column_stack([np.full((size, 2), 8), correct, np.tile(found, (size, 1))]).astype(
        float
    )


EVIDENCE = {
    "mean": lambda rng: MeanLoss(*rng.binomial(1, [[0.7], [0.75]], size=(2, 60)), 1.0),
    "bleu": lambda rng: CorpusLoss(
        bleu_like(rng, 60, 0.6), bleu_like(rng, 60, 0.6), "bleu"
    ),
    "speed": lambda rng: SpeedUp(
        rng.uniform(1, 2, 8), rng.integers(5, 9, 8), rng.uniform(2, 4, 8), rng.integers(5, 9, 8)
    ),
}


@pytest.mark.parametrize("kind", EVIDENCE)
@pytest.mark.parametrize("level", [0.05, 0.004])
def test_the_bound_is_the_strictest_promise_that_passes(kind, level):
    found = EVIDENCE[kind](np.random.default_rng(3))
    bound = found.bound(level)
    stricter = 1.01 if kind == "speed" else 0.99
    assert (
        found.p_value(bound) <= level < found.p_value(bound * stricter - 1e-6 * (kind != "speed"))
    )
    assert (bound < found.estimate) == (kind == "speed")


@pytest.mark.parametrize(("repeat", "allowed"), [("mean", 1e-9), ("bleu", 0.01), ("speed", 0.01)])
def test_more_examples_like_these_are_like_the_examples_again(repeat, allowed):
    rng = np.random.default_rng(8)
    scores, expert = rng.binomial(1, [[0.9], [0.92]], size=(2, 60))
    statistics = bleu_like(rng, 60, 0.6), bleu_like(rng, 60, 0.6)
    times = rng.uniform(2, 4, 12), np.full(12, 8), rng.uniform(4, 6, 12), np.full(12, 8)
    make, columns, beyond = {
        "mean": (lambda *x: MeanLoss(*x, 1.0), (scores, expert), 0.05),
        "bleu": (lambda *x: CorpusLoss(*x, "bleu"), statistics, 1.5),
        "speed": (SpeedUp, times, -0.15),
    }[repeat]
    limit = make(*columns).estimate + beyond
    thrice = make(*(np.concatenate([column] * 3) for column in columns))
    found = make(*columns).p_value(limit, times=3.0)
    assert found == pytest.approx(thrice.p_value(limit), abs=allowed)
    assert 1e-4 < found < make(*columns).p_value(limit)
    enough = wanted(make(*columns), limit, found)
    assert 0.94 < enough / (3 * make(*columns).examples) < 1.06


def test_no_number_of_examples_certifies_what_breaks_the_promise():
    losing = MeanLoss(np.zeros(20), np.ones(20), 1.0)
    assert wanted(losing, 0.5, 0.05) is None


def test_corpus_scores_vary_as_whole_examples_drawn_anew_do():
    rng = np.random.default_rng(4)
    expert, scores = bleu_like(rng, 300, 0.62), bleu_like(rng, 300, 0.6)
    found = quality_loss(scores, expert, 100.0, "bleu")
    assert found.estimate == pytest.approx(aggregate.bleu(expert) - aggregate.bleu(scores))
    # Against the bootstrap over whole examples, the plain way, three unseen ones among them.
    worst = scores.mean(0)
    worst[2:6] = 0
    scores = np.concatenate([scores, np.tile(worst, (3, 1))])
    expert = np.concatenate([expert, np.tile(expert.mean(0), (3, 1))])
    index = rng.integers(303, size=(2000, 303))
    losses = aggregate.bleu(expert[index]) - aggregate.bleu(scores[index])
    for promised in np.quantile(losses, [0.2, 0.5, 0.9]):
        assert found.p_value(promised) == pytest.approx(np.mean(losses >= promised), abs=0.04)


def test_a_corpus_score_that_is_only_just_kept_passes_as_often_as_allowed():
    rng = np.random.default_rng(6)
    many = (aggregate.bleu(bleu_like(rng, 200_000, matches)) for matches in (0.62, 0.6))
    promised = next(many) - next(many)  # what is lost in truth
    passed = np.zeros(2)
    for _ in range(1000):
        found = CorpusLoss(bleu_like(rng, 400, 0.6), bleu_like(rng, 400, 0.62), "bleu")
        passed += [found.p_value(promised) <= 0.1, found.p_value(promised + 2) <= 0.1]
    broken, kept = passed / 1000
    assert broken < 0.12 and kept > 0.8


def test_answers_that_are_rarely_lost_break_no_promise():
    """Where most samples of examples show no loss at all, as would any resampling of them."""
    rng = np.random.default_rng(7)
    many = bleu_like(rng, 200_000, 0.6)
    promised = 0.02 * aggregate.bleu(many)  # lost where a fiftieth of the answers is worth nothing
    passed = 0
    for _ in range(500):
        expert = bleu_like(rng, 100, 0.6)
        lost = rng.uniform(size=100) < 0.02
        scores = np.where(lost[:, None], aggregate.without_matches(expert), expert)
        passed += CorpusLoss(scores, expert, "bleu").p_value(0.99 * promised) <= 0.05
    assert passed / 500 < 0.08
    assert aggregate.worthless("bleu") is aggregate.without_matches


@pytest.mark.parametrize("size", [6, 20])
def test_speed_that_is_only_just_reached_passes_as_often_as_allowed(size):
    rng = np.random.default_rng(5)
    passed = 0
    for _ in range(1500):
        tokens = rng.integers(20, 60, size)
        expert_ms = 10.0 * tokens
        ms = expert_ms / 1.5 * rng.lognormal(0, 0.2, size) / math.exp(0.02)  # its mean is 1
        passed += SpeedUp(ms, tokens, expert_ms, tokens).p_value(1.5) <= 0.05
    assert 0.03 < passed / 1500 < 0.08


def test_speed_without_spread():
    tokens = np.full(4, 10)
    found = SpeedUp(np.full(4, 5.0), tokens, np.full(4, 10.0), tokens)
    assert found.estimate == 2.0
    assert (found.p_value(1.9), found.p_value(2.1)) == (0.0, 1.0)
    # Of a constant ratio the examples' lengths say nothing.
    ms = np.array([3.0, 5.0, 8.0])
    assert SpeedUp(ms, [1, 2, 3], 2 * ms, [1, 2, 3]).p_value(1.99) < 1e-6
