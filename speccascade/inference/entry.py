"""Fields of a setting as configs write them, read by type."""

from collections.abc import Callable, Mapping
from typing import Any

from speccascade import kernels, learned_head, rules, verify
from speccascade.errors import UserError
from speccascade.inference.setting import TRUNCATIONS, Pairs, pairs_of
from speccascade.inputs import values
from speccascade.knobs import HeadKnob


class Missing(UserError):
    """A setting lacks a field that it must have.

    Attributes:
      field: which.
    """

    def __init__(self, field: str, told: str):
        super().__init__(told)
        self.field = field


def number(
    given: Mapping[str, Any], field: str, default: float | None = None, required: bool = False
) -> float:
    """Returns a finite number."""
    value = given.get(field, default)
    if value is None and required:
        raise Missing(field, f"it has no {field}; give it one")
    return values.number(field, value) + 0.0  # no negative zero: it would be another setting


def integer(given: Mapping[str, Any], field: str, default: int | None) -> int | None:
    """Returns a whole number, None where there is none."""
    value = given.get(field, default)
    return None if value is None else values.whole(field, value)


def length(given: Mapping[str, Any], field: str) -> int:
    """Returns how many tokens a draft has."""
    found = integer(given, field, None)
    if found is None:
        raise Missing(field, f"it has no {field}; give it one, at least 1")
    if found < 1:
        raise UserError(f"{field}={found} must be at least 1")
    return found


def rule(
    given: Mapping[str, Any], prefix: str = "", rows: Mapping[str, Any] = rules.RULES
) -> tuple[str, Pairs, set[str]]:
    """Returns a rule, its knobs, and the names of its fields, which all have the prefix.

    Args:
      given: the fields of a setting.
      prefix: of those of the rule.
      rows: the rules to choose from.
    """
    if f"{prefix}rule" not in given:
        raise Missing(f"{prefix}rule", "it names no rule; give it one")
    name = given[f"{prefix}rule"]
    others: Mapping[str, Any]
    if rows is rules.RULES:
        others, kind, method = kernels.KERNELS, "an acceptance kernel", "kernel"
    else:
        others, kind, method = rules.RULES, "a rule with a target", "speculative"
    if isinstance(name, str) and name in others:
        instead = "" if prefix else f"; or give method={method}"
        raise UserError(f"rule {name} is {kind}; here it is one of {', '.join(rows)}{instead}")
    row = rows[values.choice(f"{prefix}rule", name, rows)]
    own: dict[str, Any] = {}
    for key, knob in row.knobs.items():
        field = f"{prefix}{key}"
        if given.get(field, knob.default) is None:
            raise Missing(field, f"rule {name} needs {field}; its domain is {knob.domain}")
        if isinstance(knob, HeadKnob):
            own[key] = learned_head.reference(given[field])
            continue
        read: Callable[..., Any] = integer if knob.static else number
        own[key] = read(given, field, knob.default)
    rules.make(name, **own)  # checks the domains
    return name, pairs_of(own), {f"{prefix}rule", *(f"{prefix}{key}" for key in own)}


def verifier(given: Mapping[str, Any]) -> str:
    """Returns the verifier's name, "token" where none is given."""
    return values.choice("verifier", given.get("verifier", "token"), verify.METHODS)


def truncation(given: Mapping[str, Any], who: str) -> Pairs:
    """Returns the limits on the drafter or the expert."""
    limits = {}
    for kind in TRUNCATIONS:
        if f"{who}_{kind}" not in given:
            continue
        field = f"{who}_{kind}"
        value = (values.whole if kind == "top_k" else values.number)(field, given[field])
        valid = {"top_k": value >= 1, "top_p": 0 < value <= 1, "min_p": 0 <= value <= 1}[kind]
        if not valid:
            domain = {"top_k": "at least 1", "top_p": "in (0, 1]", "min_p": "in [0, 1]"}[kind]
            raise UserError(f"{field}={value} must be {domain}")
        limits[kind] = value
    return pairs_of(limits)


def truncations(given: Mapping[str, Any], *who: str) -> tuple[dict[str, Pairs], set[str]]:
    """Returns the limits on some models as fields of `Setting`, and the names of their fields."""
    known = {f"{role}_{kind}" for role in who for kind in TRUNCATIONS}
    return {f"{role}_truncation": truncation(given, role) for role in who}, known
