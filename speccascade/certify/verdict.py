"""What saved answers allow to say of settings, and how surely.

Two questions are asked of each setting, of its loss over the answers before: is it surely at most
what is promised, and is there surely one? A setting can be wrong about one of them only. Of several
settings the best owes part of its success to chance, so all are tested together, each question so
that with the stated confidence no answer to it is wrong (`tuning.sequences`).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from speccascade.certify.measured import Measured, Times
from speccascade.certify.scoring import Scoring
from speccascade.errors import UserError
from speccascade.tasks import aggregate
from speccascade.tuning import evidence
from speccascade.tuning.sequences import Certified, certify

KEPT, WORSE, UNTOLD, UNTESTED = "kept", "worse", "not told apart", "not tested"

# A t-test knows too little of the tails of fewer.
LEAST_OF_CORPUS = 50


@dataclasses.dataclass(frozen=True)
class Speed:
    """A speed-up.

    Attributes:
      estimate: time before over time after, of all prompts together.
      interval: at the verdict's confidence, for this setting alone.
      prompts: timed in both.
      per: "token", or "answer" where tokens are not counted.
    """

    estimate: float
    interval: tuple[float, float]
    prompts: int
    per: str


@dataclasses.dataclass(frozen=True)
class Question:
    """One of the two questions about a setting, tested.

    Attributes:
      evidence: of a loss.
      promised: what the loss is at most, if the answer is yes.
      level: the p-value that was needed.
      yes: whether that is sure.
      tested: whether its turn came.
    """

    evidence: evidence.Evidence
    promised: float
    level: float
    yes: bool
    tested: bool = True

    @functools.cached_property
    def bound(self) -> float:
        """The least loss that could have been promised."""
        return self.evidence.bound(self.level)

    @functools.cached_property
    def wanted(self) -> int | None:
        """About how many prompts like these would do; None where no number would."""
        return evidence.wanted(self.evidence, self.promised, self.level)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is said of one setting.

    Attributes:
      after: the setting, aligned.
      quality: of all its answers.
      kept: whether its loss is at most what is promised.
      worse: whether there is one: whether the loss of the answers before over its own is below 0.
      speed: None where fewer than two prompts were timed in both.
    """

    after: Measured
    quality: float
    kept: Question
    worse: Question
    speed: Speed | None

    @property
    def loss(self) -> float:
        """The quality before less that after."""
        return self.kept.evidence.estimate

    @property
    def outcome(self) -> str:
        """`KEPT`, `WORSE`, `UNTOLD`, or `UNTESTED` where one before it failed."""
        if self.kept.yes:
            return KEPT
        if self.worse.yes:
            return WORSE
        return UNTOLD if self.kept.tested else UNTESTED

    @property
    def would(self) -> tuple[str, int | None]:
        """What more prompts like these would show, and about how many in all."""
        if self.loss < self.kept.promised:
            return KEPT, self.kept.wanted
        return WORSE, self.worse.wanted


def judge(
    before: Measured,
    afters: Sequence[Measured],
    scoring: Scoring,
    promised: float,
    confidence: float = 0.95,
    ordered: bool = False,
) -> list[Verdict]:
    """Says of each setting what its answers allow.

    Args:
      before: what is compared with.
      afters: the settings, each aligned with it.
      scoring: of all scores.
      promised: the largest loss allowed, at least 0.
      confidence: of the verdicts.
      ordered: whether the settings are tested in their order, up to the first failure, which needs
        no correction where the order was chosen without looking; else all of them at once.

    Raises:
      UserError: there are too few prompts for any verdict.
    """
    error = round(1 - confidence, 12)
    _check_size(len(before.ids), scoring, promised, error / (1 if ordered else len(afters)))

    def test(one: Measured, other: Measured) -> evidence.Evidence:
        return evidence.quality_loss(
            one.scores, other.scores, scoring.full_score, scoring.aggregate
        )

    losses = [test(after, before) for after in afters]
    gains = [test(before, after) for after in afters]
    p_values = [loss.p_value(promised) for loss in losses]
    sequences = [p_values] if ordered else [[p] for p in p_values]
    kept = _questions(losses, promised, certify(sequences, error), ordered)
    alone = certify([[gain.p_value(0.0)] for gain in gains], error)
    worse = _questions(gains, 0.0, alone, False)
    quality = aggregate.statistic(scoring.aggregate)
    return [
        Verdict(after, float(quality(after.scores)), one, other, _speed(before, after, error))
        for after, one, other in zip(afters, kept, worse, strict=True)
    ]


def _questions(
    told: Sequence[evidence.Evidence], promised: float, found: Certified, ordered: bool
) -> list[Question]:
    """Returns the outcome of each test, of one sequence or of as many as there are tests."""
    if ordered:
        (count,), (level,) = found
        return [
            Question(own, promised, level, i < count, i <= count) for i, own in enumerate(told)
        ]
    return [
        Question(own, promised, level, count == 1)
        for own, count, level in zip(told, *found, strict=True)
    ]


def _check_size(size: int, scoring: Scoring, promised: float, level: float) -> None:
    """Raises UserError where even the clearest answers would tell nothing."""
    if scoring.aggregate != "mean":
        least = LEAST_OF_CORPUS
    else:
        least = next(n for n in range(1, 10_000) if _clearest(n, scoring, promised) <= level)
    if size < least:
        raise UserError(
            f"{size} prompts are too few for any verdict on {scoring.what}, whatever their "
            f"answers; give at least {least}"
        )


def _clearest(size: int, scoring: Scoring, promised: float) -> float:
    """Returns the least p-value that so many means can have, for either question."""
    worst, best = np.zeros(size), np.full(size, scoring.full_score)
    test = evidence.MeanLoss(best, worst, scoring.full_score)
    return min(test.p_value(promised), test.p_value(0.0))


def _speed(before: Measured, after: Measured, error: float) -> Speed | None:
    own, other = after.times, before.times
    if after.beside and after.beside[0] == before.source:
        other = after.beside[1]  # timed in turn: what else the machine did fell on both
    if own is None or other is None:
        return None
    both = np.isfinite(own.seconds) & np.isfinite(other.seconds)
    counted = own.counted and other.counted

    def columns(times: Times) -> tuple[np.ndarray, np.ndarray]:
        seconds = times.seconds[both]
        return seconds, times.tokens[both] if counted else np.ones_like(seconds)

    there = *columns(own), *columns(other)
    if both.sum() < 2 or any(np.sum(column > 0) < 2 for column in there):
        return None
    faster, slower = evidence.SpeedUp(*there), evidence.SpeedUp(*there[2:], *there[:2])
    interval = faster.bound(error / 2), 1 / slower.bound(error / 2)
    return Speed(faster.estimate, interval, int(both.sum()), "token" if counted else "answer")
