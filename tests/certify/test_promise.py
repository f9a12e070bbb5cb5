"""That what is said is true as often as it is said to be: by simulation with known losses."""

import numpy as np
import pytest

from speccascade.certify.verdict import KEPT, WORSE, judge
from tests.certify import simulated
from tests.certify.simulated import BLEU, MEAN, allowed, errors, measured

# Name: prompts, the true loss, what makes scores, their kind.
CASES = {
    "no loss, hardly any answer differs": (
        150, 0.0, lambda rng: simulated.right_or_wrong(rng, 150, 0.0, 0.04), MEAN,
    ),
    "a small loss": (
        150, 0.02, lambda rng: simulated.right_or_wrong(rng, 150, 0.02, 0.1), MEAN,
    ),
    "a large loss": (
        60, 0.3, lambda rng: simulated.right_or_wrong(rng, 60, 0.3, 0.4), MEAN,
    ),
    "rare answers lost": (
        100, 0.01, lambda rng: simulated.right_or_wrong(rng, 100, 0.01, 0.01), MEAN,
    ),
    "several samples": (
        60, 0.08,
        lambda rng: [x.mean(1) for x in simulated.several_samples(rng, 60, 0.08, 4)], MEAN,
    ),
    "BLEU, no loss": (
        120, 0.0, lambda rng: [simulated.statistics(rng, 120, 0.6) for _ in range(2)], BLEU,
    ),
    "BLEU, few prompts": (
        50, simulated.bleu_loss(0.65, 0.6),
        lambda rng: [simulated.statistics(rng, 50, m) for m in (0.65, 0.6)], BLEU,
    ),
    "BLEU, rare answers lost": (
        120, simulated.rare_bleu_loss(0.6, 0.02),
        lambda rng: simulated.rarely_lost(rng, 120, 0.6, 0.02), BLEU,
    ),
    "BLEU, a large loss": (
        120, simulated.bleu_loss(0.65, 0.5),
        lambda rng: [simulated.statistics(rng, 120, m) for m in (0.65, 0.5)], BLEU,
    ),
}  # fmt: skip


def check(name, repetitions, error=0.05):
    _, loss, make, scoring = CASES[name]
    found = errors(make, loss, scoring, repetitions)
    assert max(found.values()) <= allowed(error, repetitions), found
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_is_said_is_true_as_often_as_it_is_said_to_be(name):
    check(name, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_said_is_true_in_many_more_repetitions(name):
    found = check(name, 2000)
    if name == "BLEU, a large loss":  # nor much rarer: it does not hide behind wide bounds
        assert found["kept"] > 0.01


def test_answers_are_not_resampled_where_prompts_are_drawn():
    """Samples for a prompt taken for prompts of their own promise too much."""
    loss, samples = 0.12, 16

    def make(rng, pooled):
        both = simulated.several_samples(rng, 40, loss, samples, all_at_once=loss, ease=(1, 1))
        return [x.mean(1) if pooled else x.ravel() for x in both]

    repetitions = 60
    honest, greedy = (
        errors(lambda rng, p=pooled: make(rng, p), loss, MEAN, repetitions)["kept"]
        for pooled in (True, False)
    )
    assert honest <= allowed(0.05, repetitions) < greedy


def test_of_many_settings_none_is_certified_by_chance():
    """And where each is tested as if it were alone, more often than allowed one is."""
    repetitions, loss = 40, simulated.bleu_loss(0.65, 0.4)
    together = alone = 0
    for i in range(repetitions):
        rng = np.random.default_rng((7, i))
        tables = [simulated.statistics(rng, 150, share) for share in (0.65, *[0.4] * 24)]
        before, *afters = (measured(table, f"s{k}") for k, table in enumerate(tables))
        verdicts = judge(before, afters, BLEU, loss)
        together += any(verdict.outcome == KEPT for verdict in verdicts)
        alone += any(verdict.kept.evidence.p_value(loss) <= 0.05 for verdict in verdicts)
    assert together / repetitions <= allowed(0.05, repetitions) < alone / repetitions


def test_of_many_settings_none_is_called_worse_by_chance():
    """Where answers differ and no quality is lost."""
    repetitions, found = 60, 0
    for i in range(repetitions):
        rng = np.random.default_rng((8, i))
        before = measured(rng.uniform(size=80) < 0.5, "before")
        afters = [measured(rng.uniform(size=80) < 0.5, f"s{k}") for k in range(8)]
        verdicts = judge(before, afters, MEAN, 0.1)
        found += any(verdict.outcome == WORSE for verdict in verdicts)
    assert found / repetitions <= allowed(0.05, repetitions)


@pytest.mark.parametrize(("prompts", "speedup"), [(8, 1.0), (40, 2.0)])
def test_the_interval_of_a_speed_up_holds_it(prompts, speedup):
    repetitions, missed = 150, 0
    scores = np.tile([0.0, 1.0], prompts // 2)
    for i in range(repetitions):
        before, after = simulated.timed(np.random.default_rng((9, i)), prompts, speedup)
        [verdict] = judge(
            measured(scores, "a", times=before), [measured(scores, "b", times=after)], MEAN, 0.5
        )
        low, high = verdict.speed.interval
        missed += not low <= speedup <= high
    assert missed / repetitions <= allowed(0.05, repetitions)
    assert verdict.speed.prompts == prompts and verdict.speed.per == "token"
