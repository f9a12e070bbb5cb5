"""Which of many promises may be made at once, and in which order they are tested.

A setting chosen as the best of many on the same examples owes part of its success to chance.
Learn-then-Test (Angelopoulos et al., 2021) tests all of them so that with a stated confidence
*none* that is certified breaks its promise; then any of them may be chosen, for any reason.
Settings that differ in alpha form a sequence, tested in an order known beforehand, from where the
promise is easiest to keep; a sequence ends at its first failure and pays for one test only. The
sequences share the error as in Holm's procedure: one that was certified to its end leaves its part
to the others (a case of Bretz et al., "A graphical approach to sequentially rejective multiple test
procedures", 2009).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from speccascade import rules
from speccascade.inference.setting import Setting


class Certified(NamedTuple):
    """What came of the sequences.

    Attributes:
      counts: how many hypotheses of each are certified, from its start.
      levels: the level at which each was last tested.
    """

    counts: list[int]
    levels: list[float]


def certify(p_values: Sequence[Sequence[float]], error: float) -> Certified:
    """Tests sequences so that the probability of certifying anything wrongly is at most `error`.

    Args:
      p_values: of each sequence, none of them empty, in its order.
      error: one less the confidence.
    """
    counts = [0] * len(p_values)
    levels = [error] * len(p_values)
    active = list(range(len(p_values)))
    while active:
        before = len(active)
        for s in list(active):
            levels[s] = error / before
            while counts[s] < len(p_values[s]) and p_values[s][counts[s]] <= levels[s]:
                counts[s] += 1
            if counts[s] == len(p_values[s]):
                active.remove(s)
        if len(active) == before:
            break
    return Certified(counts, levels)


def law(setting: Setting) -> Setting:
    """Returns what the law of a setting's answers depends on: of a speculative one, not N.

    Settings of one law have the same expected quality.
    """
    return setting.method.law(setting)


def sequences(settings: Iterable[Setting], from_drafter: bool = False) -> list[list[Setting]]:
    """Returns the settings as sequences in which only alpha or a truncation changes.

    Args:
      settings: distinct.
      from_drafter: whether those nearest to the drafter come first, not those nearest to the
        expert. Nearness is known from the rule alone: the order may not depend on what was
        measured.
    """
    found: dict[tuple, list[Setting]] = {}
    for setting in settings:
        found.setdefault(_kind(setting), []).append(setting)
    return [sorted(s, key=_distance, reverse=from_drafter) for s in found.values()]


def _kind(setting: Setting) -> tuple:
    fixed = tuple((k, v) for k, v in setting.knobs if k not in ("alpha", "threshold"))
    names = tuple(
        tuple(kind for kind, _ in pairs)
        for pairs in (setting.drafter_truncation, setting.expert_truncation)
    )
    return (
        setting.method,
        setting.rule,
        fixed,
        setting.draft_length,
        setting.verifier,
        names,
        setting.drafting,
    )


def _distance(setting: Setting) -> tuple[float, ...]:
    """Returns a measure of how far from the expert a setting is, within its sequence."""
    knobs, found = dict(setting.knobs), []
    if "alpha" in knobs:
        row = rules.definition(setting.rule)
        if row.expert_at is not None:
            found.append(abs(knobs["alpha"] - row.expert_at["alpha"]))
        else:
            end = row.drafter_at["alpha"]
            found.append(-abs(knobs["alpha"] - end))
    if "threshold" in knobs:  # answers below it are the expert's
        found.append(-knobs["threshold"])
    for kind, value in setting.expert_truncation + setting.drafter_truncation:
        found.append(value if kind == "min_p" else -value)
    return tuple(found)
