"""How strongly examples speak for a promise about one setting: p-values and bounds.

The null hypothesis is always that the promise is broken. Examples are taken for independent draws
of the task; every test is paired, a setting's examples with the expert's own answers to the same.
"""

import math
from typing import Protocol

import numpy as np
from scipy.special import stdtr, stdtrit

from speccascade.inference import metrics
from speccascade.tasks import aggregate

_UNSEEN = 3  # examples of what was never met

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


class CorpusLoss:
    """The expert's corpus score less a setting's: a t-test, jackknifed. Approximate.

    What differs in few examples may not show in these: answers that are rarely lost, and then
    wholly. What was met in none of n has a share of up to 3 / n, at 95 %; so the test sees three
    more examples in which the setting's answer is worth nothing. Without them a promise that one
    answer in a hundred breaks passed in 39 % of simulated tables of 120 examples; no resampling of
    a table shows what is not in it.
    """

    def __init__(self, scores: np.ndarray, expert_scores: np.ndarray, name: str):
        """Pairs statistics float64 [n, k] with the expert's.

        Args:
          scores: of the setting.
          expert_scores: of the expert.
          name: of the aggregate, which depends on the statistics' sums alone.
        """
        self._both = np.stack([expert_scores, scores])
        unseen = self._both.mean(1)
        unseen[1] = aggregate.worthless(name)(unseen[1])
        self._unseen = unseen[:, None]
        self._statistic = aggregate.statistic(name)
        self.estimate = float(self._loss(self._both.sum(1, keepdims=True))[0])
        self.examples = len(scores)

    def _loss(self, sums: np.ndarray) -> np.ndarray:
        """Returns the loss [m] of sums [2, m, k] of the expert and the setting."""
        expert, own = self._statistic(sums[..., None, :])
        return expert - own

    def _tested(self, times: float) -> tuple[float, float, float]:
        """Returns the loss, its standard error and the number of examples, unseen ones included."""
        total = times * self._both.sum(1, keepdims=True) + _UNSEEN * self._unseen
        estimate = float(self._loss(total)[0])
        moved = self._loss(total - np.concatenate([self._both, self._unseen], 1)) - estimate
        weight = np.append(np.full(self.examples, times), _UNSEEN)
        size = weight.sum()
        spread = weight @ (moved - weight @ moved / size) ** 2
        return estimate, float(np.sqrt((size - 1) / size * spread)), size

    def p_value(self, promised: float, times: float = 1.0) -> float:
        estimate, error, size = self._tested(times)
        return _t_test(promised - estimate, error, size)

    def bound(self, level: float) -> float:
        estimate, error, size = self._tested(1.0)
        beyond = -stdtrit(size - 1, level) * error
        return float(np.nextafter(estimate + beyond * (1 + 1e-9), np.inf))


class SpeedUp:
    """The expert's time per token over a setting's: a t-test of its logarithm, jackknifed.

    Approximate, as the examples are few and their times not normal. It knows how examples differ,
    not what the machine does on another day.
    """

    def __init__(self, ms, tokens, expert_ms, expert_tokens):
        """Pairs columns float64 [n], n at least 2; see `metrics.speedup`."""
        columns = [np.asarray(x, np.float64) for x in (ms, tokens, expert_ms, expert_tokens)]
        others = [(x.sum() - x)[:, None] for x in columns]  # the sums without one example each
        self.examples = len(columns[0])
        self._error = float(np.sqrt((self.examples - 1) * np.log(metrics.speedup(*others)).var()))
        self.estimate = float(metrics.speedup(*columns))

    def p_value(self, promised: float, times: float = 1.0) -> float:
        above = np.log(self.estimate) - np.log(promised)
        return _t_test(above, self._error / times**0.5, times * self.examples)

    def bound(self, level: float) -> float:
        return _boundary(self.p_value, level, strict=self.estimate * 1e3, lax=self.estimate * 1e-3)


def quality_loss(
    scores: np.ndarray, expert_scores: np.ndarray, full_score: float, name: str
) -> Evidence:
    """Returns the evidence on the loss of a quality that `tasks.aggregate` calls `name`."""
    if name == "mean":
        return MeanLoss(scores, expert_scores, full_score)
    return CorpusLoss(scores, expert_scores, name)


def wanted(evidence: Evidence, promised: float, level: float) -> int | None:
    """Returns about how many examples like these would do; None where 1000 times as many do not."""
    times = 1.0
    while evidence.p_value(promised, times) > level:
        times *= 1.05
        if times > 1000:
            return None
    return math.ceil(times * evidence.examples)


def _t_test(above: float, error: float, examples: float) -> float:
    """Returns the p-value of a figure that is so far above what is promised."""
    if error == 0:
        return 0.0 if above > 0 else 1.0
    return float(stdtr(examples - 1, -above / error))


def _boundary(p_value, level: float, strict: float, lax: float) -> float:
    """Returns the strictest promise with a p-value of at most `level`, by bisection."""
    if p_value(lax) > level:
        return lax
    for _ in range(60):
        middle = (strict + lax) / 2
        strict, lax = (strict, middle) if p_value(middle) <= level else (middle, lax)
    return lax
