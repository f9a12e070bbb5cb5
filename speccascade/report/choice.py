"""What each method is at its best: chosen on the validation split, reported on the test split."""

import dataclasses
from collections.abc import Callable, Iterable

from speccascade import rules
from speccascade.inference import metrics
from speccascade.inference.setting import Setting
from speccascade.report.points import Point, Points
from speccascade.tasks import aggregate

VALIDATION, TEST = "validation", "test"


def follows_expert(setting: Setting) -> bool:
    """Returns whether every token follows the expert's own distribution, whatever was measured."""
    if setting.expert_truncation:
        return False
    if setting.method.in_blocks:
        return rules.definition(setting.rule).expert_at == dict(setting.knobs)
    return setting.method.alone == "expert"


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A way to choose among a method's settings.

    Attributes:
      name: for files.
      title: for people.
      rule: what is done, exactly.
      admits: (point, the expert's point), both of the validation split -> whether it may be chosen.
      score: point -> what is largest at the chosen one.
    """

    name: str
    title: str
    rule: str
    admits: Callable[[Point, Point], bool]
    score: Callable[[Point], tuple]


FASTEST = Criterion(
    "fastest",
    "Largest speed-up at no loss of quality",
    "of the settings whose mean quality on the validation split is at least that of the expert's "
    "own decoding at the same temperature (point estimates, no tolerance), or whose law is exactly "
    "the expert's, the one with the largest speed-up there",
    lambda point, expert: point.quality >= expert.quality or follows_expert(point.setting),
    lambda point: (point.speedup, point.quality),
)
BEST = Criterion(
    "best",
    "Best quality at no more than the expert's latency",
    "of the settings whose speed-up on the validation split is at least 1, the one with the "
    "highest mean quality there, the faster one of equals",
    lambda point, expert: point.speedup >= 1 or point.setting == expert.setting,
    lambda point: (point.quality, point.speedup),
)
CRITERIA = (FASTEST, BEST)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A method at the setting that a criterion chose for it.

    Attributes:
      criterion: how it was chosen.
      temperature: of the comparison.
      label: the method.
      setting: the chosen one; None where the criterion admits none.
      validation: the setting's point on the split that chose it.
      test: its point on the split that is reported; None where there is no setting.
      difference: test quality less the expert's, over the same examples.
      difference_interval: paired bootstrap interval of `difference`.
      quality_verdict: "better", "worse" or "not told apart" from the expert; None for the expert.
      speed_verdict: "faster", "slower" or "not told apart" from the expert; None for the expert
        and where it was not timed.
    """

    criterion: Criterion
    temperature: float
    label: str
    setting: Setting | None = None
    validation: Point | None = None
    test: Point | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    quality_verdict: str | None = None
    speed_verdict: str | None = None


def choose(
    points: Points, temperature: float, criterion: Criterion, draft_length: int | None = None
) -> list[Choice]:
    """Returns one choice per method that was measured at this temperature, in the grid's order.

    Args:
      points: of both splits; the expert's own decoding at this temperature must be there.
      temperature: of the comparison.
      criterion: how to choose.
      draft_length: N, to which the choice is confined; None for every method's own best.
    """
    expert = {split: points.expert(temperature, split) for split in (VALIDATION, TEST)}
    methods: dict[str, list[Setting]] = {}
    for setting in points.settings():
        confined = draft_length is not None and setting.draft_length != draft_length
        if setting.temperature == temperature and not confined:
            methods.setdefault(setting.label, []).append(setting)
    return [
        _choice(points, temperature, criterion, label, settings, expert)
        for label, settings in methods.items()
    ]


def _choice(points, temperature, criterion, label, settings, expert) -> Choice:
    candidates = [points.of(setting, VALIDATION) for setting in settings]
    admitted = [
        point
        for point in candidates
        if point is not None
        and point.speedup is not None
        and points.of(point.setting, TEST) is not None
        and criterion.admits(point, expert[VALIDATION])
    ]
    if not admitted:
        return Choice(criterion, temperature, label)
    chosen = max(admitted, key=criterion.score)
    test = points.of(chosen.setting, TEST)
    is_reference = chosen.setting == expert[VALIDATION].setting
    columns = test.scores, expert[TEST].scores
    difference = metrics.difference(aggregate.statistic(test.aggregate))
    interval = metrics.bootstrap(difference, *columns)
    return Choice(
        criterion=criterion,
        temperature=temperature,
        label=label,
        setting=chosen.setting,
        validation=chosen,
        test=test,
        difference=float(difference(*columns)),
        difference_interval=interval,
        quality_verdict=None if is_reference else metrics.verdict(interval),
        speed_verdict=None if is_reference else _speed_verdict(test),
    )


def _speed_verdict(test: Point) -> str | None:
    return None if test.timing is None else speed_verdict(test.timing.interval)


def speed_verdict(interval: tuple[float, float]) -> str:
    """Returns "faster", "slower" or, where the interval of a ratio holds 1, neither."""
    word = metrics.verdict(interval, zero=1.0)
    return {"better": "faster", "worse": "slower"}.get(word, word)


def complete_temperatures(points: Points) -> Iterable[float]:
    """Returns the temperatures at which the expert was measured on both splits, ascending."""
    return [
        temperature
        for temperature in points.temperatures()
        if all(points.expert(temperature, split) for split in (VALIDATION, TEST))
    ]
