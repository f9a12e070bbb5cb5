"""One setting against another, over the same examples: differences, intervals and verdicts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from speccascade.inference import metrics
from speccascade.inference.methods import SPECULATIVE
from speccascade.inference.setting import Setting
from speccascade.report.choice import (
    CRITERIA,
    TEST,
    VALIDATION,
    Choice,
    choose,
    speed_verdict,
)
from speccascade.report.points import Point, Points, Timing
from speccascade.report.table import interval
from speccascade.tasks import aggregate


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What one setting gains over another on a split.

    Attributes:
      question: what is compared, and how it was chosen.
      ours: the one.
      rival: the other.
      difference: our quality less theirs.
      difference_interval: paired bootstrap interval of `difference`.
      quality_verdict: "better", "worse" or "not told apart".
      ratio: our speed over theirs; None where the same examples were not timed for both.
      ratio_interval: paired bootstrap interval of `ratio`.
      speed_verdict: "faster", "slower" or "not told apart".
    """

    question: str
    ours: Point
    rival: Point
    difference: float
    difference_interval: tuple[float, float]
    quality_verdict: str
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    speed_verdict: str | None = None

    def __str__(self) -> str:
        quality = interval(self.difference, self.difference_interval, sign=True)
        words = (
            f"{name(self.ours.setting)} against {name(self.rival.setting)}: quality "
            f"{_at_size(self.quality_verdict, len(self.ours.scores))}, {quality}"
        )
        if self.ratio is None:
            return f"{words}; speed was not measured for both"
        speed = _at_size(self.speed_verdict, len(self.ours.timing.ms))
        return f"{words}; speed {speed}, {interval(self.ratio, self.ratio_interval, 2)} times"


def name(setting: Setting) -> str:
    """Returns a setting's method and what is chosen within it."""
    return f"{setting.label} ({setting.choices})" if setting.choices else setting.label


def _at_size(verdict: str, size: int) -> str:
    at = " at this sample size" if verdict == "not told apart" else ""
    return f"{verdict}{at} (n = {size})"


def compare(question: str, ours: Point, rival: Point) -> Comparison:
    """Compares two points of one split and one task."""
    difference = metrics.difference(aggregate.statistic(ours.aggregate))
    columns = ours.scores, rival.scores
    bounds = metrics.bootstrap(difference, *columns)
    found = Comparison(
        question, ours, rival, float(difference(*columns)), bounds, metrics.verdict(bounds)
    )
    if not ours.timing or not rival.timing or len(ours.timing.ms) != len(rival.timing.ms):
        return found
    times = (*_columns(ours.timing), *_columns(rival.timing))
    ratio = metrics.bootstrap(_ratio, *times)
    return dataclasses.replace(
        found,
        ratio=float(_ratio(*times)),
        ratio_interval=ratio,
        speed_verdict=speed_verdict(ratio),
    )


def _columns(timing: Timing) -> tuple[np.ndarray, ...]:
    return timing.ms, timing.tokens, timing.expert_ms, timing.expert_tokens


def _ratio(*columns: np.ndarray) -> np.ndarray:
    # Each beside the expert's own times in its process: what else the machine did cancels.
    return metrics.speedup(*columns[:4]) / metrics.speedup(*columns[4:])


def lossless(points: Points, setting: Setting) -> Setting | None:
    """Returns the lossless speculative decoding that a setting is compared with.

    That of the same temperature, draft length and verifier; where it was not measured or the
    setting drafts nothing, the fastest on the validation split of its temperature. None where there
    is none.
    """
    candidates = [
        s
        for s in points.settings()
        if s == dataclasses.replace(Setting(SPECULATIVE, "spec"), **_kept(s))
        and s.temperature == setting.temperature
        and points.of(s, TEST) is not None
    ]
    same = [s for s in candidates if _kept(s) == _kept(setting)]
    found = {s: points.of(s, VALIDATION) for s in candidates}
    timed = {s: p.speedup for s, p in found.items() if p is not None and p.speedup is not None}
    return same[0] if same else max(timed, key=timed.__getitem__, default=None)


def _kept(setting: Setting) -> dict:
    return {k: getattr(setting, k) for k in ("temperature", "draft_length", "verifier")}


def against_lossless(points: Points, choices: Sequence[Choice]) -> list[Comparison]:
    """Compares each method's choice with lossless speculative decoding."""
    found = []
    for choice in choices:
        rival = choice.setting and lossless(points, choice.setting)
        if rival and rival != choice.setting:
            question = f"{choice.criterion.title}, temperature {choice.temperature:g}"
            found.append(compare(question, choice.test, points.of(rival, TEST)))
    return found


def matched(
    points: Points, temperature: float, label: str, rivals: Sequence[str]
) -> tuple[list[Comparison], list[str]]:
    """Sets a method beside rivals where both are equally fast, or equally good.

    A rival stands where either criterion put it. Of the method's settings that are at least as
    fast there on the validation split, the best is compared in quality; of those that are at
    least as good, the fastest is compared in speed. The comparison itself is that of the test
    split.

    Args:
      points: of both splits.
      temperature: of the comparison.
      label: the method.
      rivals: labels of the others.

    Returns:
      The comparisons, and a line for each that could not be made.
    """
    own = [
        p
        for s in points.settings()
        if s.label == label and s.temperature == temperature
        for p in (points.of(s, VALIDATION),)
        if p is not None and p.speedup is not None and points.of(s, TEST) is not None
    ]
    standing: dict[Any, Any] = {}  # a rival that both criteria put in one place is compared once
    for criterion in CRITERIA:
        for choice in choose(points, temperature, criterion):
            if choice.label in rivals and choice.setting is not None:
                standing.setdefault(choice.setting, choice)
    found, impossible = [], []
    for setting, choice in standing.items():
        where = choice.validation
        for question, admitted, score in (
            (
                f"at {name(setting)}'s latency",
                [p for p in own if p.speedup >= where.speedup],
                lambda p: (p.quality, p.speedup),
            ),
            (
                f"at {name(setting)}'s quality",
                [p for p in own if p.quality >= where.quality],
                lambda p: (p.speedup, p.quality),
            ),
        ):
            if not admitted:
                impossible.append(f"no setting of {label} stands on validation {question}")
                continue
            ours = points.of(max(admitted, key=score).setting, TEST)
            found.append(compare(question, ours, choice.test))
    return found, impossible
