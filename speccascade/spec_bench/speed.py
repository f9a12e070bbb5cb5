"""What Spec-Bench's `speed.py` makes of two files of answers, task by task.

Its tokens per second are the mean over questions of a question's tokens over its seconds, and its
speed-up is the ratio of two such means. A method's tokens are those it generated. The expert's are
counted anew from its texts, less one for the beginning-of-sequence that its tokenizers put before a
text: an end-of-sequence is none of them, and where a tokenizer puts nothing before a text one
more is lost in every turn. So the speed-up by tokens generated stands beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from speccascade.inference import metrics
from speccascade.report.table import Table, interval, number

OVERALL = "overall"


class Speed(NamedTuple):
    """One setting beside the expert, on the questions of one task.

    Attributes:
      questions: how many.
      accepted: the mean of all `accept_lengths`.
      tokens_per_second: of the setting.
      baseline: the expert's, its tokens counted from its texts.
      speedup: their ratio; None where the expert's texts have no tokens.
      interval: of it, bootstrapped over questions.
      by_generated: the ratio where both count what they generated.
      same: the share of answers that are the expert's own, letter by letter.
    """

    questions: int
    accepted: float
    tokens_per_second: float
    baseline: float
    speedup: float | None
    interval: tuple[float, float] | None
    by_generated: float
    same: float


def compare(
    answers: Sequence[Mapping[str, Any]],
    baseline: Sequence[Mapping[str, Any]],
    count: Callable[[str], int],
    tasks: Mapping[str, str],
) -> dict[str, Speed]:
    """Returns the speeds by task, all of them together under `OVERALL`.

    Args:
      answers: a setting's rows.
      baseline: the expert's, of the same questions in the same order.
      count: from a text to the length of what the tokenizer makes of it as a prompt.
      tasks: the task of each category.
    """
    rows = np.array([_row(*both, count) for both in zip(answers, baseline, strict=True)])
    own = np.array([tasks[answer["category"]] for answer in answers])
    found = {task: _speed(rows[own == task]) for task in dict.fromkeys(own.tolist())}
    return {**found, OVERALL: _speed(rows)}


def _row(answer: Mapping[str, Any], base: Mapping[str, Any], count) -> list[float]:
    """Returns the figures of one question, for `_speed`."""
    own, other = answer["choices"][0], base["choices"][0]
    seconds, other_seconds = sum(own["wall_time"]), sum(other["wall_time"])
    counted = sum(count(text) - 1 for text in other["turns"])
    return [
        sum(own["new_tokens"]) / seconds,
        counted / other_seconds,
        sum(other["new_tokens"]) / other_seconds,
        sum(own["accept_lengths"]),
        len(own["accept_lengths"]),
        np.mean([a == b for a, b in zip(own["turns"], other["turns"], strict=True)]),
    ]


def _ratio(speeds: np.ndarray, others: np.ndarray) -> np.ndarray:
    return speeds.mean(-1) / others.mean(-1)


def _speed(rows: np.ndarray) -> Speed:
    speeds, counted, generated, accepted, steps, same = rows.T
    told = (counted > 0).any()
    return Speed(
        questions=len(rows),
        accepted=float(accepted.sum() / steps.sum()),
        tokens_per_second=float(speeds.mean()),
        baseline=float(counted.mean()),
        speedup=float(_ratio(speeds, counted)) if told else None,
        interval=metrics.bootstrap(_ratio, speeds, counted) if (counted > 0).all() else None,
        by_generated=float(_ratio(speeds, generated)),
        same=float(same.mean()),
    )


def tables(speeds: Mapping[str, Mapping[str, Speed]]) -> list[Table]:
    """Returns speed-ups and accepted tokens by task, a row for each setting, by its name."""
    tasks = list(next(iter(speeds.values())))

    def table(title: str, cell: Callable[[Speed], str]) -> Table:
        rows = [[name, *(cell(own[task]) for task in tasks)] for name, own in speeds.items()]
        return Table(title, ("setting", *tasks), rows)

    last = Table(
        "All tasks together",
        (
            "setting",
            "questions",
            "tokens/s",
            "expert's tokens/s",
            "speed-up",
            "speed-up by tokens generated",
            "same answers",
        ),
        [
            [
                name,
                str(own[OVERALL].questions),
                number(own[OVERALL].tokens_per_second, 1),
                number(own[OVERALL].baseline, 1),
                interval(own[OVERALL].speedup, own[OVERALL].interval, 2),
                number(own[OVERALL].by_generated, 2),
                number(own[OVERALL].same, 2),
            ]
            for name, own in speeds.items()
        ],
    )
    return [
        table("Speed-up", lambda own: number(own.speedup, 2)),
        table("Mean accepted tokens", lambda own: number(own.accepted, 2)),
        last,
    ]


def records(speeds: Mapping[str, Mapping[str, Speed]]) -> list[dict[str, Any]]:
    """Returns every figure of every setting and task."""
    found = []
    for name, own in speeds.items():
        for task, speed in own.items():
            low, high = speed.interval or (None, None)
            figures = {**speed._asdict(), "speedup_low": low, "speedup_high": high}
            del figures["interval"]
            found.append({"setting": name, "task": task, **figures})
    return found
