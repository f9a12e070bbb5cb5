"""What a sweep says first: what is saved in expert calls and in time, and at what quality."""

from collections.abc import Mapping
from typing import Any

from speccascade.report import columns
from speccascade.report.choice import (
    FASTEST,
    TEST,
    VALIDATION,
    complete_temperatures,
    speed_verdict,
)
from speccascade.report.comparison import Comparison, compare, lossless
from speccascade.report.every_setting import name
from speccascade.report.points import Point, Points
from speccascade.report.table import Table, interval
from speccascade.tasks.metrics import METRICS


def sentences(points: Points) -> list[str]:
    """Returns a few sentences for each temperature that has the expert's decoding on both splits.

    Settings are chosen on validation among those that lose nothing there, see `choice.FASTEST`;
    what is said of them is measured on test.
    """
    return [
        f"Temperature {temperature:g}: {_said(points, temperature)}"
        for temperature in complete_temperatures(points)
    ]


def brief(points: Points) -> list[Table]:
    """Returns every setting on test with few figures, a table for each temperature."""
    headings = ("setting", "quality", "tokens per expert call", "speed over the expert's")
    return [
        Table(
            f"Temperature {temperature:g}",
            headings,
            [
                [
                    points.mark(point.setting, name(point.setting)),
                    interval(point.quality, point.interval, _digits(points)),
                    columns.COLUMNS["tokens_per_expert_call"].text(point, points),
                    columns.COLUMNS["speedup"].text(point, points),
                ]
                for point in points.on(TEST)
                if point.setting.temperature == temperature
            ],
        )
        for temperature in points.temperatures()
    ]


def units(points: Points, task: Mapping[str, Any]) -> str:
    """Returns what the figures of `brief` are; `task` is the config's section."""
    metric = task.get("metric")
    scored = f"{metric}, of {METRICS[metric].full_score:g}" if metric else f"of {task['name']}"
    examples = max(len(point.scores) for point in points.on(TEST))
    said = f"Quality: {scored}, over {examples} test examples; in brackets 95 % intervals."
    timed = [len(point.timing.ms) for point in points.on(TEST) if point.timing]
    if timed:
        said += (
            " Speed: tokens per second, one prompt at a time, over those of the expert alone, "
            f"{max(timed)} examples timed."
        )
    return said


def _digits(points: Points) -> int:
    """Returns how many a quality has: some are shares of one, others of a hundred."""
    return 3 if all(point.quality <= 1 for point in points.by_setting.values()) else 1


def _said(points: Points, temperature: float) -> str:
    expert = points.expert(temperature, VALIDATION)
    admitted = [
        point
        for point in points.on(VALIDATION)
        if point.setting.temperature == temperature
        and point.setting.method.in_blocks
        and FASTEST.admits(point, expert)
        and points.of(point.setting, TEST) is not None
    ]
    if not admitted:
        return "nothing that was drafted is as good as the expert alone on the validation examples."
    said = _saves_calls(points, max(admitted, key=_calls))
    timed = [point for point in admitted if point.speedup is not None]
    return f"{said} {_saves_time(points, max(timed, key=_speedup))}".rstrip() if timed else said


def _calls(point: Point) -> float:
    return point.rates["tokens_per_expert_call"]


def _speedup(point: Point) -> float:
    return point.speedup


def _saves_calls(points: Points, chosen: Point) -> str:
    test = points.of(chosen.setting, TEST)
    said = f"{name(test.setting)} writes {_calls(test):.2f} tokens per expert call"
    rival = lossless(points, chosen.setting)
    if rival not in (None, chosen.setting):
        exact = _calls(points.of(rival, TEST))
        more = 100 * (_calls(test) / exact - 1)
        said += f", lossless decoding ({name(rival)}) {exact:.2f}: {more:+.0f} %"
    against = compare("", test, points.expert(chosen.setting.temperature, TEST))
    return (
        f"{said}. Its quality is {_quality(points, against)}. Of the settings that lost "
        "nothing on the validation examples it writes the most there."
    )


def _saves_time(points: Points, chosen: Point) -> str:
    test = points.of(chosen.setting, TEST)
    if test.timing is None:
        return ""
    speed = interval(test.speedup, test.timing.interval, 2)
    said = f"The fastest of those, {name(test.setting)}, has {speed} times the expert's speed"
    found = speed_verdict(test.timing.interval)
    return f"{said}, {'not told apart from it' if found == 'not told apart' else found}."


def _quality(points: Points, against: Comparison) -> str:
    found = interval(against.difference, against.difference_interval, _digits(points), sign=True)
    verdict = against.quality_verdict
    if verdict == "not told apart":
        examples = len(against.ours.scores)
        return f"not told apart from the expert's by {examples} test examples: {found}"
    return f"{verdict} than the expert's: {found}"
