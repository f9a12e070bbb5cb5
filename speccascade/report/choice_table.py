"""The main tables: every method at what a criterion chose for it."""

from collections.abc import Callable, Sequence
from typing import Any

from speccascade.inference.setting import Setting
from speccascade.report.choice import Choice
from speccascade.report.points import Point, Points
from speccascade.report.table import NOTHING, Table, interval, judged, number

_COLUMNS: tuple[tuple[str, Callable[[Choice, Points], str]], ...] = (
    ("method", lambda c, points: points.mark(c.setting, c.label)),
    ("chosen", lambda c, points: c.setting.choices or NOTHING),
    ("speed-up", lambda c, points: judged(speedup(c.test), c.speed_verdict)),
    ("quality", lambda c, points: interval(c.test.quality, c.test.interval)),
    ("less the expert's", lambda c, points: judged(_difference(c), c.quality_verdict)),
    ("tokens per expert call", lambda c, _: number(c.test.rates["tokens_per_expert_call"], 2)),
    ("rejection rate", lambda c, points: number(c.test.rates["rejection_rate"])),
    ("compute", lambda c, points: number(points.compute(c.test), 2)),
)


def speedup(point: Point) -> str:
    """Returns a point's speed-up and its interval as text."""
    return interval(point.speedup, point.timing.interval, digits=2) if point.timing else NOTHING


def _difference(choice: Choice) -> str:
    return interval(choice.difference, choice.difference_interval, sign=True)


def make(choices: Sequence[Choice], points: Points, draft_length: int | None = None) -> Table:
    """Returns choices of one criterion and temperature as a table.

    Args:
      choices: at least one.
      points: where they were chosen.
      draft_length: to which they were confined, for the title.
    """
    title = f"{choices[0].criterion.title}, temperature {choices[0].temperature:g}"
    if draft_length is not None:
        title += f", N = {draft_length}"
    rows = [
        [choice.label, "none admitted", *[NOTHING] * (len(_COLUMNS) - 2)]
        if choice.setting is None
        else [cell(choice, points) for _, cell in _COLUMNS]
        for choice in choices
    ]
    return Table(title, tuple(name for name, _ in _COLUMNS), rows)


def record(choice: Choice, points: Points) -> dict[str, Any]:
    """Returns every figure of a choice, None for what is missing."""
    there = choice.setting is not None
    setting, test, validation = choice.setting, choice.test, choice.validation
    nobody = (None, None)
    quality = test.interval if there else nobody
    difference = choice.difference_interval or nobody
    speed = test.timing.interval if there and test.timing else nobody
    return {
        "criterion": choice.criterion.name,
        "temperature": choice.temperature,
        "method": choice.label,
        **chosen(setting),
        "num_examples": len(test.scores) if there else None,
        "speedup": test.speedup if there else None,
        "speedup_low": speed[0],
        "speedup_high": speed[1],
        "speed_verdict": choice.speed_verdict,
        "quality": test.quality if there else None,
        "quality_low": quality[0],
        "quality_high": quality[1],
        "difference": choice.difference,
        "difference_low": difference[0],
        "difference_high": difference[1],
        "quality_verdict": choice.quality_verdict,
        "tokens_per_expert_call": test.rates["tokens_per_expert_call"] if there else None,
        "rejection_rate": test.rates["rejection_rate"] if there else None,
        "deferral_rate": test.rates["deferral_rate"] if there else None,
        "compute": points.compute(test) if there else None,
        "validation_quality": validation.quality if there else None,
        "validation_speedup": validation.speedup if there else None,
    }


def chosen(setting: Setting | None) -> dict[str, Any]:
    """Returns what is chosen within a method, in columns of their own, None for no setting."""
    return {
        "knobs": setting and _pairs(setting.knobs),
        "drafter_truncation": setting and _pairs(setting.drafter_truncation),
        "expert_truncation": setting and _pairs(setting.expert_truncation),
        "draft_length": setting and setting.draft_length,
        "verifier": setting and setting.verifier,
        "drafted_over": setting and setting.drafting.over,
        "drafting": setting and " ".join(setting.drafting.choices),
    }


def _pairs(values) -> str:
    """Returns knobs or truncations as text."""
    return " ".join(f"{k}={v:g}" for k, v in values)
