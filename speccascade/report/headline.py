"""What a sweep says first: a sentence or two for each temperature."""

from speccascade.inference.setting import Setting
from speccascade.report.choice import (
    FASTEST,
    TEST,
    VALIDATION,
    Choice,
    choose,
    complete_temperatures,
)
from speccascade.report.comparison import lossless, name
from speccascade.report.notes import is_timed
from speccascade.report.points import Points
from speccascade.report.table import interval


def sentences(points: Points) -> list[str]:
    """Returns one line per temperature that has the expert's own decoding on both splits."""
    say = _fastest if is_timed(points) else _fewest_calls
    return [
        f"Temperature {temperature:g}: {say(points, temperature)}"
        for temperature in complete_temperatures(points)
    ]


def _fastest(points: Points, temperature: float) -> str:
    expert = Setting(points.expert(temperature, TEST).setting.method, temperature=temperature)
    choices = [
        choice
        for choice in choose(points, temperature, FASTEST)
        if choice.setting not in (None, expert)
    ]
    if not choices:
        return "no setting was as good as the expert alone on validation."
    best = max(choices, key=lambda choice: choice.validation.speedup)
    said = (
        f"of the settings that lose nothing on validation {name(best.setting)} is the fastest "
        f"there; on test it is {interval(best.test.speedup, best.test.timing.interval, 2)} times "
        f"as fast as the expert alone, {_quality(best)}."
    )
    rival = lossless(points, best.setting)
    if rival in (None, best.setting):
        return said
    theirs = points.of(rival, TEST)
    if theirs is None or theirs.timing is None:
        return said
    speed = interval(theirs.speedup, theirs.timing.interval, 2)
    return f"{said} Lossless decoding, {name(rival)}: {speed} times."


def _quality(choice: Choice) -> str:
    if choice.quality_verdict == "not told apart":
        found = f"in quality not told apart from it by {len(choice.test.scores)} examples"
    else:
        found = f"in quality {choice.quality_verdict}"
    return f"{found}, {interval(choice.difference, choice.difference_interval, sign=True)}"


def _fewest_calls(points: Points, temperature: float) -> str:
    """What is said where nothing was timed."""
    expert = {split: points.expert(temperature, split) for split in (VALIDATION, TEST)}
    admitted = [
        point
        for (setting, split), point in points.by_setting.items()
        if (split, setting.temperature) == (VALIDATION, temperature)
        and setting.method.in_blocks
        and FASTEST.admits(point, expert[VALIDATION])
        and points.of(setting, TEST) is not None
    ]
    if not admitted:
        return "nothing was timed, and nothing drafted was as good as the expert on validation."
    best = max(admitted, key=lambda point: point.rates["tokens_per_expert_call"])
    test = points.of(best.setting, TEST)
    return (
        f"nothing was timed; of the settings that lose nothing on validation {name(best.setting)} "
        f"takes the fewest expert calls there; on test it has "
        f"{test.rates['tokens_per_expert_call']:.2f} tokens per call, at quality "
        f"{interval(test.quality, test.interval)} where the expert alone has "
        f"{interval(expert[TEST].quality, expert[TEST].interval)}."
    )
