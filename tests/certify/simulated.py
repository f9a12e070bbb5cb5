"""Answers with a known loss, drawn anew for every repetition; and how often a verdict errs."""

import math

import numpy as np

from speccascade.certify.measured import Measured, Times
from speccascade.certify.scoring import Scoring
from speccascade.certify.verdict import KEPT, WORSE, judge
from speccascade.tasks import aggregate

MEAN = Scoring("score", None)
BLEU = Scoring("bleu", None, "bleu", 100.0)


def measured(scores, name="x", samples=1, times=None):
    """Returns a setting with these scores by prompt."""
    ids = tuple(map(str, range(len(scores))))
    return Measured(name, name, ids, np.asarray(scores, float), (samples, samples), times)


def right_or_wrong(rng, prompts, loss, differ):
    """Scores of 0 or 1 before and after: a share of the prompts differs, the loss is as stated."""
    kind = rng.uniform(size=prompts)
    before = (rng.uniform(size=prompts) < 0.6).astype(float)
    after = before.copy()
    lost, gained = (differ + loss) / 2, (differ - loss) / 2
    before[kind < differ] = kind[kind < differ] < lost
    after[kind < differ] = kind[kind < differ] >= lost
    assert gained >= 0
    return before, after


def several_samples(rng, prompts, loss, samples, all_at_once=0.2, ease=(0.3, 1.0)):
    """Means of samples by prompt, before and after, and the samples after themselves.

    A share of the prompts is hard for what comes after: there most of its samples are wrong, and
    the loss is as stated.
    """
    mean = sum(ease) / 2
    ease = rng.uniform(*ease, size=prompts)
    hard = rng.uniform(size=prompts) < all_at_once
    chance = np.where(hard, ease * (1 - loss / (all_at_once * mean)), ease)
    before, after = (
        rng.uniform(size=(prompts, samples)) < p[:, None] for p in (ease, chance)
    )
    return before.astype(float), after.astype(float)


def statistics(rng, prompts, matches):
    """Statistics of BLEU, [prompts, 10]: sentences of various length and difficulty."""
    length = rng.integers(6, 30, size=prompts)
    found = length[:, None] - np.arange(4)
    share = np.clip(matches + 0.15 * rng.normal(size=(prompts, 1)), 0.05, 0.95)
    correct = rng.binomial(found, share ** np.arange(1, 5))
    reference = length + rng.integers(-2, 3, size=prompts)
    return np.column_stack([length, reference, correct, found]).astype(float)


def bleu_loss(before, after, size=400_000):
    """Returns the loss between two shares of matches, of very many sentences."""
    rng = np.random.default_rng(99)
    one, other = (aggregate.bleu(statistics(rng, size, m)) for m in (before, after))
    return float(one - other)


def rarely_lost(rng, prompts, matches, rate):
    """Returns the same answers twice, but for a share that have no word right."""
    before = statistics(rng, prompts, matches)
    lost = rng.uniform(size=prompts) < rate
    return before, np.where(lost[:, None], aggregate.without_matches(before), before)


def rare_bleu_loss(matches, rate, size=400_000):
    """Returns what `rarely_lost` loses, of very many sentences."""
    before, after = rarely_lost(np.random.default_rng(98), size, matches, rate)
    return float(aggregate.bleu(before) - aggregate.bleu(after))


def allowed(share, repetitions):
    """Returns a share of errors with three standard errors on top."""
    return share + 3 * math.sqrt(share * (1 - share) / repetitions)


def errors(make, loss, scoring, repetitions, seed=0):
    """Returns how often what is said of one setting is false, for each thing that is said.

    Args:
      make: from a generator of random numbers to scores before and after.
      loss: the true one.
      scoring: of the scores.
      repetitions: how many tables of scores are drawn; what is promised is only just broken.
      seed: of the first.
    """
    found = {"kept": 0, "worse": 0, "at least": 0}
    for i in range(repetitions):
        before, after = make(np.random.default_rng((seed, i)))
        [verdict] = judge(measured(before), [measured(after, "y")], scoring, loss)
        found["kept"] += verdict.outcome == KEPT
        found["worse"] += verdict.outcome == WORSE and loss <= 0
        # A loss of more than the true one, said to be surely there.
        found["at least"] += verdict.worse.evidence.p_value(-loss) <= verdict.worse.level
    return {what: count / repetitions for what, count in found.items()}


def timed(rng, prompts, speedup):
    """Returns times before and after whose expected ratio is the speed-up."""
    tokens = rng.integers(20, 200, size=prompts).astype(float)
    seconds = 0.01 * tokens * rng.lognormal(0, 0.1, size=prompts)
    other = rng.integers(20, 200, size=prompts).astype(float)
    faster = 0.01 * other / speedup * rng.lognormal(0, 0.3, size=prompts)
    faster *= math.exp(0.1**2 / 2 - 0.3**2 / 2)
    return Times(seconds, tokens), Times(faster, other)
