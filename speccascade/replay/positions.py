"""What settings do at the positions of saved answers: exactly, or between bounds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules
from speccascade.evaluate import teacher_forced
from speccascade.inference.padding import padded
from speccascade.inference.setting import Setting
from speccascade.replay import bounds
from speccascade.replay.between import Between
from speccascade.sampling import confidence
from speccascade.workdir.distributions import Recorded, Whole

_MOST_NUMBERS = 2**24  # of one model at a time


class Positions(NamedTuple):
    """What one setting does at the A positions of an answer.

    Attributes:
      rejection: TV(pi, q), the chance that a draft is rejected there; bounds, float64 [A].
      deferral: the deferred mass; NaN where the method has no such thing.
      ends: bool [A], whether the rule ends drafting before the position.
    """

    rejection: Between
    deferral: Between
    ends: np.ndarray


def replay(answers: Sequence[Recorded], settings: Sequence[Setting]) -> Iterator[list[Positions]]:
    """Yields what each of the settings does, answer by answer.

    Args:
      answers: of one vocabulary and one recording.
      settings: with a rule each.

    Raises:
      UserError: nothing is known of a rule where only some tokens were saved.
    """
    if answers[0].top is None:
        yield from _whole(answers, settings)
        return
    for setting in settings:
        bounds.check(setting.rule)
    for answer in answers:
        kinds = {}
        found = []
        for setting in settings:
            kind = setting.temperature, setting.drafter_truncation, setting.expert_truncation
            if kind not in kinds:
                kinds[kind] = bounds.partly(answer, setting)
            told = bounds.of(setting, kinds[kind])
            found.append(Positions(*told, _ends(setting, kinds[kind].q1.high)))
        yield found


def _whole(answers: Sequence[Recorded], settings: Sequence[Setting]) -> Iterator[list[Positions]]:
    width = padded(max(1, *(len(answer.tokens) for answer in answers)), step=16, steps=8)
    size = answers[0].vocab_size
    rows = max(1, min(len(answers), _MOST_NUMBERS // (width * size)))
    for start in range(0, len(answers), rows):
        part = answers[start : start + rows]
        drafter, expert = (np.zeros((rows, width, size), np.float32) for _ in range(2))
        for row, answer in enumerate(part):
            drafter[row, : len(answer.tokens)] = cast("Whole", answer.drafter).logprobs
            expert[row, : len(answer.tokens)] = cast("Whole", answer.expert).logprobs
        ids = np.zeros((rows, width), np.int32)
        told = teacher_forced.figures(None, settings, drafter, expert, ids)
        for i, answer in enumerate(part):
            own = slice(0, len(answer.tokens))
            found = []
            for setting in settings:
                figures = told[setting]
                rejection = np.asarray(figures.distance[i, own], np.float64)
                deferral = np.asarray(figures.deferral[i, own], np.float64)
                ends = np.zeros(len(rejection), bool)
                if rules.RULES[setting.rule].ends_draft is not None:
                    ends = _ends(setting, _confidence(drafter[i])[own])
                both = Between(rejection, rejection), Between(deferral, deferral)
                found.append(Positions(*both, ends))
            yield found


_confidence = jax.jit(confidence)


def _ends(setting: Setting, q1: np.ndarray) -> np.ndarray:
    """Returns where drafting ends, for q1 [A, V] or of it the most probable tokens."""
    rule = rules.make(setting.rule, **dict(setting.knobs))
    return np.asarray(_ends_draft(rule, jnp.asarray(q1, jnp.float32)))


_ends_draft = jax.jit(rules.ends_draft)
