"""What is known of a setting, prompt by prompt: several samples for one are averaged first.

Prompts are what is drawn at random, not answers: samples for one prompt are alike.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from speccascade.certify.forms import Sample
from speccascade.certify.reading import Answers, listed
from speccascade.errors import UserError

Score = float | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Times:
    """What answers took, float64 [n] by prompt; NaN where that is not known.

    Attributes:
      seconds: an answer's.
      tokens: an answer's; 1 where they are not counted.
      counted: whether tokens are counted, in all answers with a time.
    """

    seconds: np.ndarray
    tokens: np.ndarray
    counted: bool = True


@dataclasses.dataclass(frozen=True)
class Measured:
    """A setting on its prompts.

    Attributes:
      name: what tables call it.
      source: where it comes from, unlike any other's.
      ids: of the prompts.
      scores: float64 [n], or [n, k] of statistics: each prompt's mean over its samples.
      samples: the fewest and the most samples for a prompt.
      times: None where nothing was timed.
      acceptance: tokens per pass of the model that verifies; None where it is not known.
      beside: source and times of the setting that was timed in turn with it, in one process; None
        where there is none.
    """

    name: str
    source: str
    ids: tuple[str, ...]
    scores: np.ndarray
    samples: tuple[int, int] = (1, 1)
    times: Times | None = None
    acceptance: float | None = None
    beside: tuple[str, Times] | None = None


def by_prompt(answers: Answers, score: Callable[[Sample], Score]) -> Measured:
    """Scores the samples of a setting and averages them by prompt."""
    groups: dict[str, list[Sample]] = {}
    for sample in answers.samples:
        groups.setdefault(sample.id, []).append(sample)
    scores = [np.mean([score(s) for s in own], axis=0, dtype=np.float64) for own in groups.values()]
    sizes = [len(own) for own in groups.values()]
    return Measured(
        name=answers.name,
        source=answers.source,
        ids=tuple(groups),
        scores=np.array(scores),
        samples=(min(sizes), max(sizes)),
        times=_times(list(groups.values())),
        acceptance=_acceptance(answers.samples),
    )


def aligned(before: Measured, after: Measured) -> Measured:
    """Returns `after` with its prompts in the order of those of `before`.

    Raises:
      UserError: they are not the same prompts.
    """
    here, there = set(after.ids), set(before.ids)
    lacks = [id for id in before.ids if id not in here]
    more = [id for id in after.ids if id not in there]
    parts = [f"lacks {len(lacks)} ids of {before.name}: {listed(lacks)}"] if lacks else []
    if more:
        parts.append(f"has {len(more)} that {before.name} lacks: {listed(more)}")
    if parts:
        raise UserError(f"{after.name} {' and '.join(parts)}; give both the same prompts")
    place = {id: i for i, id in enumerate(after.ids)}
    order = [place[id] for id in before.ids]

    def sorted_(times: Times) -> Times:
        return dataclasses.replace(times, seconds=times.seconds[order], tokens=times.tokens[order])

    return dataclasses.replace(
        after,
        ids=before.ids,
        scores=after.scores[order],
        times=after.times and sorted_(after.times),
        beside=after.beside and (after.beside[0], sorted_(after.beside[1])),
    )


def _times(groups: Sequence[Sequence[Sample]]) -> Times | None:
    timed = [[s for s in own if s.seconds is not None] for own in groups]
    if not any(timed):
        return None
    counted = all(s.tokens is not None for own in timed for s in own)
    seconds = [_mean([s.seconds for s in own]) for own in timed]
    tokens = [_mean([s.tokens if counted else 1.0 for s in own]) for own in timed]
    return Times(np.array(seconds), np.array(tokens), counted)


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _acceptance(samples: Sequence[Sample]) -> float | None:
    both = [(s.emitted, s.passes) for s in samples if s.emitted is not None and s.passes]
    return math.fsum(x for x, _ in both) / math.fsum(y for _, y in both) if both else None
