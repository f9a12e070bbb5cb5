"""The main tables: every method at what a criterion chose for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from speccascade.inference.setting import Setting
from speccascade.report import columns
from speccascade.report.choice import Choice
from speccascade.report.columns import Column
from speccascade.report.points import Points
from speccascade.report.table import NOTHING, Table, interval, judged

# What stands in front, in another order than that of a setting alone, and with verdicts.
_FIRST = ("method", "chosen", "speed-up", "quality", "less the expert's")


def _cells(choice: Choice, points: Points, own: Mapping[str, Column]) -> list[str]:
    point = choice.test
    figures = {name: column.text(point, points) for name, column in own.items()}
    difference = interval(choice.difference, choice.difference_interval, sign=True)
    return [
        points.mark(choice.setting, choice.label),
        choice.setting.choices or NOTHING,
        judged(figures.pop("speedup"), choice.speed_verdict),
        figures.pop("quality"),
        judged(difference, choice.quality_verdict),
        *figures.values(),
    ]


def make(
    choices: Sequence[Choice],
    points: Points,
    draft_length: int | None = None,
    asked: Sequence[str] = (),
) -> Table:
    """Returns choices of one criterion and temperature as a table.

    Args:
      choices: at least one.
      points: where they were chosen.
      draft_length: to which they were confined, for the title.
      asked: see `columns.shown`.
    """
    own = columns.shown(asked, main=True)
    title = f"{choices[0].criterion.title}, temperature {choices[0].temperature:g}"
    if draft_length is not None:
        title += f", N = {draft_length}"
    others = (c.heading for name, c in own.items() if name not in ("speedup", "quality"))
    names = (*_FIRST, *others)
    rows = [
        [choice.label, "none admitted", *[NOTHING] * (len(names) - 2)]
        if choice.setting is None
        else _cells(choice, points, own)
        for choice in choices
    ]
    return Table(title, names, rows)


def record(choice: Choice, points: Points) -> dict[str, Any]:
    """Returns every figure of a choice, None for what is missing."""
    test, validation = choice.test, choice.validation
    difference = choice.difference_interval or (None, None)
    return {
        "criterion": choice.criterion.name,
        "temperature": choice.temperature,
        "method": choice.label,
        **chosen(choice.setting),
        "num_examples": test and len(test.scores),
        **({} if test is None else columns.records(test, points)),
        "speed_verdict": choice.speed_verdict,
        "difference": choice.difference,
        "difference_low": difference[0],
        "difference_high": difference[1],
        "quality_verdict": choice.quality_verdict,
        "validation_quality": validation and validation.quality,
        "validation_speedup": validation and validation.speedup,
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
