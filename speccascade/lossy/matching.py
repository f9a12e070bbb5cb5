"""Rivals of lossy modes at equal speed: lossless decoding, its strength found on other examples.

A family is lossless decoding from targets that go from the expert's law to faster ones as their
strength grows. On the validation split a grid of strengths is measured, and then what lies between
the two around a mode's tokens per expert call, until they are equal. Where the expert's own law is
as fast already, no strength is needed for speed, and of those as fast the one stands that is best
on the validation split. On the test split the strength that was found is measured once: it cannot
have been chosen by what the test says.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from speccascade.errors import UserError
from speccascade.inference.reading import setting as read_setting
from speccascade.inference.setting import Setting
from speccascade.inputs import values
from speccascade.report.choice import VALIDATION
from speccascade.report.points import Point, Points, unseeded

CLOSE = 0.005  # of the mode's tokens per expert call
ROUNDS = 8
_NEEDED = ("name", "fields", "strength", "grid")
_EXAMPLE = "configs/lossy_modes.py"


@dataclasses.dataclass(frozen=True)
class Family:
    """Lossless decoding at several strengths.

    Attributes:
      name: as tables call it.
      entries: of its settings, a mapping of fields per seed, without the strength.
      strength: the fields that take it.
      grid: the strengths that are measured first, ascending, the expert's own law before all.
    """

    name: str
    entries: tuple[Mapping[str, Any], ...]
    strength: tuple[str, ...]
    grid: tuple[float, ...]

    def at(self, strength: float) -> list[dict[str, Any]]:
        """Returns the entries of a strength."""
        return [{**entry, **dict.fromkeys(self.strength, strength)} for entry in self.entries]

    def setting(self, strength: float) -> Setting:
        """Returns the setting of a strength, its seeds pooled."""
        return unseeded(read_setting(self.at(strength)[0]))

    def rivals(self, mode: Setting) -> bool:
        """Returns whether the family decodes as a mode does: its temperature and draft length."""
        own = self.setting(self.grid[0])
        return (own.temperature, own.draft_length) == (mode.temperature, mode.draft_length)

    def strength_of(self, setting: Setting) -> float | None:
        """Returns the strength of one of the family's settings, None of another's."""
        own = self.setting(self.grid[0])
        given = {**dict(setting.knobs), **_limits(setting)}
        if setting.rule != own.rule or self.strength[0] not in given:
            return None
        found = given[self.strength[0]]
        return found if self.setting(found) == setting else None


def _limits(setting: Setting) -> dict[str, float]:
    both = {"expert": setting.expert_truncation, "drafter": setting.drafter_truncation}
    return {f"{role}_{kind}": value for role, own in both.items() for kind, value in own}


class Match(NamedTuple):
    """A family beside a mode.

    Attributes:
      strength: the one of equal tokens per expert call; where none has as many, that of the most,
        and where the least has them already, one as fast.
      reaches: whether one has.
      next: where to measure next; None where the strength is found, or cannot be.
    """

    strength: float
    reaches: bool
    next: float | None = None


def families(config: ml_collections.ConfigDict | Mapping[str, Any]) -> list[Family]:
    """Returns the families of a config's section `rivals`.

    Raises:
      UserError: there are none, or one is not as it must be.
    """
    found = []
    for i, given in enumerate(config.get("rivals") or ()):
        section = values.section(f"rivals[{i}]", given, _NEEDED, _EXAMPLE)
        grid = tuple(float(each) for each in section["grid"])
        if len(grid) < 2 or list(grid) != sorted(set(grid)):
            raise UserError(
                f"rivals[{i}].grid={list(grid)} must be two strengths or more, ascending"
            )
        entries = tuple(dict(each) for each in section["fields"])
        found.append(Family(section["name"], entries, tuple(section["strength"]), grid))
    if not found:
        raise UserError(f"the config has no section rivals; {_EXAMPLE} has one")
    return found


def tokens(point: Point) -> float:
    """Returns a point's tokens per expert call."""
    return point.rates["tokens_per_expert_call"]


def match(points: Points, family: Family, mode: Setting) -> Match | None:
    """Returns a family beside a mode, by the validation split; None where they do not compare: at
    another temperature or draft length, or where the grid was not measured."""
    if not family.rivals(mode):
        return None
    own = points.of(mode, VALIDATION)
    measured = {
        strength: point
        for point in points.on(VALIDATION)
        if (strength := family.strength_of(point.setting)) is not None
    }
    if own is None or not set(family.grid) <= set(measured):
        return None
    found = between({each: tokens(point) for each, point in measured.items()}, tokens(own))
    if found.strength > min(measured) or not found.reaches:
        return found
    enough = [s for s in sorted(measured) if tokens(measured[s]) >= tokens(own) * (1 - CLOSE)]
    return found._replace(strength=max(enough, key=lambda each: measured[each].quality))


def between(measured: Mapping[float, float], wanted: float) -> Match:
    """Returns the least strength of as many tokens per call as are wanted.

    Args:
      measured: tokens per call by strength.
      wanted: those of the mode.
    """
    strengths = sorted(measured)
    enough = [s for s in strengths if measured[s] >= wanted * (1 - CLOSE)]
    if not enough:
        return Match(max(strengths, key=lambda each: measured[each]), False)
    high = enough[0]
    if high == strengths[0] or measured[high] <= wanted * (1 + CLOSE):
        return Match(high, True)  # equal, or faster though it has the expert's own law
    low = strengths[strengths.index(high) - 1]
    share = (wanted - measured[low]) / (measured[high] - measured[low])
    inside = float(np.round(low + share * (high - low), 4))
    nearest = min((low, high), key=lambda each: abs(measured[each] - wanted))
    return Match(nearest, True, inside if low < inside < high else None)


def missing(
    points: Points, families: Sequence[Family], modes: Sequence[Setting]
) -> list[dict[str, Any]]:
    """Returns the entries of the strengths that the validation split asks for next."""
    found: dict[Setting, list[dict[str, Any]]] = {}
    for family in families:
        for mode in modes:
            beside = match(points, family, mode)
            if beside is not None and beside.next is not None:
                found[family.setting(beside.next)] = family.at(beside.next)
    return [entry for entries in found.values() for entry in entries]
