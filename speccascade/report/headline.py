"""What a sweep says first: what is saved in expert calls and in time, and at what quality."""

from speccascade.report import columns, every_setting
from speccascade.report.choice import (
    FASTEST,
    TEST,
    VALIDATION,
    complete_temperatures,
    speed_verdict,
)
from speccascade.report.comparison import Comparison, compare, lossless, name
from speccascade.report.points import Point, Points
from speccascade.report.table import Table, interval

_BRIEF = ("quality", "tokens_per_expert_call", "speedup")


def sentences(points: Points) -> list[str]:
    """Returns one line per temperature that has the expert's own decoding on both splits.

    Settings are chosen on validation among those that lose nothing there, see `choice.FASTEST`;
    what is said of them is measured on test.
    """
    return [
        f"Temperature {temperature:g}: {_said(points, temperature)}"
        for temperature in complete_temperatures(points)
    ]


def brief(points: Points) -> list[Table]:
    """Returns every setting on test with few figures, a table for each temperature."""
    shown = [columns.COLUMNS[key] for key in _BRIEF]
    headings = ("setting", *(column.heading for column in shown))
    return [
        Table(
            f"Temperature {temperature:g}",
            headings,
            [
                [
                    points.mark(point.setting, every_setting.name(point.setting)),
                    *(column.text(point, points) for column in shown),
                ]
                for (setting, split), point in points.by_setting.items()
                if split == TEST and setting.temperature == temperature
            ],
        )
        for temperature in points.temperatures()
    ]


def _said(points: Points, temperature: float) -> str:
    expert = points.expert(temperature, VALIDATION)
    admitted = [
        point
        for (setting, split), point in points.by_setting.items()
        if (split, setting.temperature) == (VALIDATION, temperature)
        and setting.method.in_blocks
        and FASTEST.admits(point, expert)
        and points.of(setting, TEST) is not None
    ]
    if not admitted:
        return "nothing that was drafted is as good as the expert alone on validation."
    fewest = max(admitted, key=_calls)
    said = "of what is as good as the expert alone on validation, " + _saves_calls(points, fewest)
    timed = [point for point in admitted if point.speedup is not None]
    return f"{said} {_saves_time(points, max(timed, key=_speedup))}" if timed else said


def _calls(point: Point) -> float:
    return point.rates["tokens_per_expert_call"]


def _speedup(point: Point) -> float:
    return point.speedup


def _saves_calls(points: Points, chosen: Point) -> str:
    test = points.of(chosen.setting, TEST)
    said = f"{name(test.setting)} has most tokens per expert call, {_calls(test):.2f} on test"
    rival = lossless(points, chosen.setting)
    if rival not in (None, chosen.setting):
        said += f" where lossless {name(rival)} has {_calls(points.of(rival, TEST)):.2f}"
    against = compare("", test, points.expert(chosen.setting.temperature, TEST))
    return f"{said}; quality {_quality(against)}."


def _saves_time(points: Points, chosen: Point) -> str:
    test = points.of(chosen.setting, TEST)
    if test.timing is None:
        return ""
    times = f"{interval(test.speedup, test.timing.interval, 2)} times the expert's speed"
    if speed_verdict(test.timing.interval) == "slower":
        return f"None saves time here: {name(test.setting)} runs at {times}."
    return f"The fastest is {name(test.setting)}, at {times}."


def _quality(against: Comparison) -> str:
    found = interval(against.difference, against.difference_interval, sign=True)
    verdict = against.quality_verdict
    if verdict == "not told apart":
        verdict = f"not told apart from the expert's by {len(against.ours.scores)} examples"
    return f"{verdict}, {found}"
