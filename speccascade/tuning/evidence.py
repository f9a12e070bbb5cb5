"""How strongly examples speak for a promise about one setting: p-values and bounds.

The null hypothesis is always that the promise is broken. Examples are taken for independent draws
of the task; every test is paired, a setting's examples with the expert's own answers to the same.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.special import stdtr

from speccascade.inference import metrics
from speccascade.tasks import aggregate

RESAMPLES = 9_999

# Shares of the most that can be bet, dense at both ends (the arcsine law of universal portfolios).
_BETS = np.sin(np.pi * (np.arange(64) + 0.5) / 128) ** 2


class Evidence(Protocol):
    """What examples say of one figure of a setting.

    Attributes:
      estimate: the figure on these examples.
      examples: how many they are.
    """

    estimate: float
    examples: int

    def p_value(self, promised: float, times: float = 1.0) -> float:
        """Returns how likely evidence as strong is where the promise is broken, at most.

        Args:
          promised: the figure's limit.
          times: as if there were so many times as many examples like these.
        """

    def bound(self, level: float) -> float:
        """Returns the strictest promise whose p-value is at most `level`."""


def bounded_mean_p_value(
    losses: np.ndarray, promised: float, full_score: float, times: float = 1.0
) -> np.ndarray:
    """Tests whether a mean of bounded losses is below what is promised, at any number of examples.

    A gambler who bets on every example that its loss is below `promised` wins nothing on average
    where the promise is broken: by Markov's inequality one over what he has in the end is a
    p-value. He divides his money among fixed bets, so that the order of the examples is nothing
    (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024).

    Args:
      losses: float64 [..., n], each in [-full_score, full_score].
      promised: what the mean shall not exceed; strictly inside that interval.
      full_score: the largest score; the smallest is 0.
      times: as if there were so many times as many examples like these.

    Returns:
      [...], p-values of "the mean loss is at least `promised`".
    """
    gains = (full_score - np.asarray(losses, np.float64)) / (full_score - promised) - 1
    wealth = times * np.stack([np.log1p(bet * gains).sum(-1) for bet in _BETS])
    top = wealth.max(0)
    return np.minimum(1.0, np.exp(-top) / np.exp(wealth - top).mean(0))


class MeanLoss:
    """The expert's mean score less a setting's; its p-values hold at any number of examples."""

    def __init__(self, scores: np.ndarray, expert_scores: np.ndarray, full_score: float):
        """Pairs scores float64 [n], each in [0, full_score], with the expert's."""
        self._losses = expert_scores - scores
        self._full = full_score
        self.estimate = float(self._losses.mean())
        self.examples = len(scores)

    def p_value(self, promised: float, times: float = 1.0) -> float:
        return float(bounded_mean_p_value(self._losses, promised, self._full, times))

    def bound(self, level: float) -> float:
        edge = self._full * (1 - 1e-9)
        return _boundary(self.p_value, level, strict=-edge, lax=edge)


class ResampledLoss:
    """The expert's corpus score less a setting's, by the percentile bootstrap: approximate."""

    def __init__(
        self,
        scores: np.ndarray,
        expert_scores: np.ndarray,
        statistic: Callable[[np.ndarray], np.ndarray],
    ):
        """Pairs statistics float64 [n, k] with the expert's; `statistic` depends on sums alone."""
        size, rng, resampled = len(scores), np.random.default_rng(0), []

        def loss(weights):
            return statistic((weights @ expert_scores)[..., None, :]) - statistic(
                (weights @ scores)[..., None, :]
            )

        for start in range(0, RESAMPLES, 1000):  # in parts, for memory's sake
            count = min(1000, RESAMPLES - start)
            resampled.append(loss(rng.multinomial(size, np.full(size, 1 / size), size=count)))
        self._resampled = np.sort(np.concatenate(resampled))
        self.estimate = float(loss(np.ones((1, size)))[0])
        self.examples = size

    def p_value(self, promised: float, times: float = 1.0) -> float:
        promised = self.estimate + (promised - self.estimate) * times**0.5
        beyond = len(self._resampled) - np.searchsorted(self._resampled, promised, side="left")
        return (1 + int(beyond)) / (1 + RESAMPLES)

    def bound(self, level: float) -> float:
        beyond = int(level * (1 + RESAMPLES)) - 1  # resamples that may lie at or above the promise
        if beyond < 0:
            return float("inf")
        return float(np.nextafter(self._resampled[RESAMPLES - 1 - beyond], np.inf))


class SpeedUp:
    """The expert's time per token over a setting's: a t-test of its logarithm, jackknifed.

    Approximate, as the examples are few and their times not normal. It knows how examples differ,
    not what the machine does on another day.
    """

    def __init__(self, ms, tokens, expert_ms, expert_tokens):
        """Pairs columns float64 [n], n at least 2; see `metrics.speedup`."""
        columns = [np.asarray(x, np.float64) for x in (ms, tokens, expert_ms, expert_tokens)]
        size = len(columns[0])
        others = [(x.sum() - x)[:, None] for x in columns]  # the sums without one example each
        each = np.log(metrics.speedup(*others))
        self._error = float(np.sqrt((size - 1) * each.var()))
        self.estimate = float(metrics.speedup(*columns))
        self.examples = size

    def p_value(self, promised: float, times: float = 1.0) -> float:
        above = np.log(self.estimate) - np.log(promised)
        if self._error == 0:
            return 0.0 if above > 0 else 1.0
        return float(stdtr(times * self.examples - 1, -above / self._error * times**0.5))

    def bound(self, level: float) -> float:
        return _boundary(self.p_value, level, strict=self.estimate * 1e3, lax=self.estimate * 1e-3)


def quality_loss(
    scores: np.ndarray, expert_scores: np.ndarray, full_score: float, name: str
) -> Evidence:
    """Returns the evidence on the loss of a quality that `tasks.aggregate` calls `name`."""
    if name == "mean":
        return MeanLoss(scores, expert_scores, full_score)
    return ResampledLoss(scores, expert_scores, aggregate.statistic(name))


def wanted(evidence: Evidence, promised: float, level: float) -> int | None:
    """Returns about how many examples like these would do; None where 1000 times as many do not."""
    times = 1.0
    while evidence.p_value(promised, times) > level:
        times *= 1.05
        if times > 1000:
            return None
    return math.ceil(times * evidence.examples)


def _boundary(p_value, level: float, strict: float, lax: float) -> float:
    """Returns the strictest promise with a p-value of at most `level`, by bisection."""
    if p_value(lax) > level:
        return lax
    for _ in range(60):
        middle = (strict + lax) / 2
        strict, lax = (strict, middle) if p_value(middle) <= level else (middle, lax)
    return lax
