"""From the points of the validation split to the setting that is chosen, with its promise."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from speccascade.errors import UserError
from speccascade.inference.setting import Setting
from speccascade.report.choice import VALIDATION, follows_expert
from speccascade.report.points import Point, Points
from speccascade.tuning import evidence
from speccascade.tuning.sequences import certify, law, sequences


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A promise about some settings, tested.

    Attributes:
      settings: those it speaks of; several where their answers have one law.
      examples: how many were tested.
      estimate: the loss or the speed-up on the validation split.
      bound: what could have been promised at the level of the test.
      p_value: of "the promise is broken".
      level: the p-value that was needed; of a sequence, when it was last tested.
      tested: whether its turn came: a sequence ends at the first failure.
      certified: whether the promise is made.
      wanted: about how many examples would certify it, if they are like these; None where no number
        would.
    """

    settings: tuple[Setting, ...]
    examples: int
    estimate: float
    bound: float
    p_value: float
    level: float
    tested: bool
    certified: bool
    wanted: int | None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was chosen on the validation split.

    Attributes:
      promise: what is promised.
      confidence: with which.
      temperature: of all settings.
      hypotheses: all of them, sequence by sequence.
      chosen: the setting.
      basis: "certified" by its examples, by its "law", or None where nothing is promised.
      lossless: the fastest setting whose law is the expert's.
      kept: tokens per block of each setting that keeps the promise; NaN of one without blocks.
    """

    promise: "Promise"
    confidence: float
    temperature: float
    hypotheses: tuple[Hypothesis, ...]
    chosen: Setting
    basis: str | None
    lossless: Setting
    kept: Mapping[Setting, float]

    @property
    def nearest(self) -> Hypothesis | None:
        """The hypothesis that failed by least, None where none failed."""
        failed = [h for h in self.hypotheses if h.tested and not h.certified]
        return min(failed, key=lambda h: h.p_value / h.level, default=None)


class Promise(Protocol):
    """What is promised of the chosen setting.

    Attributes:
      value: what was asked for.
      figure: what it is about, for people.
      from_drafter: which end of a sequence keeps it most easily.
    """

    @property
    def value(self) -> float: ...
    @property
    def figure(self) -> str: ...
    @property
    def from_drafter(self) -> bool: ...

    def __str__(self) -> str: ...

    def kept(self, value: float) -> bool:
        """Returns whether a figure keeps the promise."""

    def groups(self, settings: Iterable[Setting]) -> dict[Setting, list[Setting]]:
        """Returns the settings of each hypothesis, by what tells it from others."""

    def by_law(self, setting: Setting) -> bool:
        """Returns whether a setting keeps it whatever is measured."""

    def evidence(self, points: list[Point], expert: Point) -> evidence.Evidence:
        """Returns what a hypothesis' points say of it."""

    def preference(self, point: Point) -> tuple[float, float]:
        """Returns what is largest at the chosen one."""


@dataclasses.dataclass(frozen=True)
class MaxQualityLoss:
    """That the expected quality is at most `value` below the expert's, in the task's score units.

    Of the settings that keep it the fastest is chosen.

    Attributes:
      value: at least 0, below `full_score`.
      full_score: of the task.
    """

    value: float
    full_score: float
    figure = "quality loss"
    from_drafter = False

    def __post_init__(self):
        if not 0 <= self.value < self.full_score:
            raise UserError(
                f"--max_quality_loss={self.value:g} must be at least 0 and below "
                f"{self.full_score:g}, the score of a perfect answer"
            )

    def __str__(self) -> str:
        return f"quality at most {self.value:g} below the expert's"

    def kept(self, value: float) -> bool:
        return value <= self.value

    def groups(self, settings: Iterable[Setting]) -> dict[Setting, list[Setting]]:
        found: dict[Setting, list[Setting]] = {}
        for setting in settings:
            found.setdefault(law(setting), []).append(setting)
        return found

    def by_law(self, setting: Setting) -> bool:
        return follows_expert(law(setting))

    def evidence(self, points: list[Point], expert: Point) -> evidence.Evidence:
        scores = np.mean([point.scores for point in points], axis=0)
        return evidence.quality_loss(scores, expert.scores, self.full_score, points[0].aggregate)

    def preference(self, point: Point) -> tuple[float, float]:
        return _speedup(point), point.quality


@dataclasses.dataclass(frozen=True)
class MinSpeedUp:
    """That a setting is at least `value` times as fast as the expert's own decoding.

    Of the settings that keep it the best is chosen, the faster one of equals.
    """

    value: float
    figure = "speed-up"
    from_drafter = True

    def __post_init__(self):
        if not 0 < self.value < math.inf:
            raise UserError(f"--min_speedup={self.value:g} must be a positive number")

    def __str__(self) -> str:
        return f"speed-up of at least {self.value:g}"

    def kept(self, value: float) -> bool:
        return value >= self.value

    def groups(self, settings: Iterable[Setting]) -> dict[Setting, list[Setting]]:
        return {setting: [setting] for setting in settings}

    def by_law(self, setting: Setting) -> bool:
        return False  # of speed no law is known

    def evidence(self, points: list[Point], expert: Point) -> evidence.Evidence:
        timing = points[0].timing
        return evidence.SpeedUp(timing.ms, timing.tokens, timing.expert_ms, timing.expert_tokens)

    def preference(self, point: Point) -> tuple[float, float]:
        return point.quality, _speedup(point)


def decide(points: Points, temperature: float, promise: Promise, confidence: float) -> Decision:
    """Chooses a setting.

    Args:
      points: of the validation split; what was not timed is no candidate.
      temperature: of the settings that may be chosen; the expert's own decoding is there.
      promise: what the chosen one shall keep.
      confidence: the probability, at least, that no setting is certified which does not keep it.
    """
    expert = points.expert(temperature, VALIDATION)
    there = [s for s in points.settings() if s.temperature == temperature]
    found = {setting: points.of(setting, VALIDATION) for setting in there}
    found = {setting: point for setting, point in found.items() if point and point.timing}
    found[expert.setting] = expert
    by_law = [setting for setting in found if promise.by_law(setting)]
    tested = [s for s in found if s not in by_law and s != expert.setting]
    hypotheses = _test(promise, tested, found, expert, round(1 - confidence, 12))
    certified = [s for h in hypotheses if h.certified for s in h.settings]
    lossless = max(
        (setting for setting in found if follows_expert(setting)),
        key=lambda setting: _speedup(found[setting]),
    )
    kept = by_law + certified
    chosen, basis = lossless, None
    if kept:
        chosen = max(kept, key=lambda setting: promise.preference(found[setting]))
        basis = "law" if chosen in by_law else "certified"
    tokens = {setting: _tokens(found[setting]) for setting in kept}
    common = promise, confidence, temperature, tuple(hypotheses)
    return Decision(*common, chosen, basis, lossless, tokens)


def _test(promise, settings, found, expert, error) -> list[Hypothesis]:
    groups = promise.groups(settings)
    ordered = sequences(groups, promise.from_drafter)
    if not ordered:
        return []
    told = {key: promise.evidence([found[s] for s in own], expert) for key, own in groups.items()}
    p_values = [[told[key].p_value(promise.value) for key in keys] for keys in ordered]
    counts, levels = certify(p_values, error)
    return [
        Hypothesis(
            settings=tuple(groups[key]),
            examples=told[key].examples,
            estimate=told[key].estimate,
            bound=told[key].bound(level),
            p_value=p_value,
            level=level,
            tested=i <= count,
            certified=i < count,
            wanted=evidence.wanted(told[key], promise.value, level),
        )
        for keys, own, count, level in zip(ordered, p_values, counts, levels, strict=True)
        for i, (key, p_value) in enumerate(zip(keys, own, strict=True))
    ]


def _tokens(point: Point) -> float:
    found = point.rates["tokens_per_expert_call"]
    return math.nan if found is None else found


def _speedup(point: Point) -> float:
    """The expert's own is 1, whatever noise its timing has."""
    return 1.0 if point.setting.method.alone == "expert" else point.speedup
