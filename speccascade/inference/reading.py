"""Settings out of configs, and out of rows."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from speccascade.errors import UserError
from speccascade.inference import drafting, entry, methods
from speccascade.inference.setting import Setting, pairs_of
from speccascade.inputs import values

Named = Mapping[str, Mapping[str, Any]]
_NONE: Named = MappingProxyType({})
_SHOWN = 8  # settings in a message


def expand(entries: Iterable[Mapping[str, Any]], named: Named = _NONE) -> list[Setting]:
    """Returns the distinct settings of a grid, in its order.

    Args:
      entries: one mapping per setting, from `sweep`: `method` ("speculative" by default), `rule`
        and its knobs, `draft_length`, `verifier` ("token" by default), `temperature`, `seed`,
        `threshold`, and `drafter_` or `expert_` `top_k`, `top_p`, `min_p`. Where a middle model
        drafts: `middle_rule` with its knobs, each named `middle_` and the knob, such as
        `middle_alpha`, and `middle_draft_length`. Where no model drafts: `drafter="lookup"`, with
        `max_ngram` and `min_ngram`; with `otherwise` a model does where nothing is found.
      named: the drafters that a pair names and that are no model of their own, by the fields that
        `drafter=NAME` stands for; see `pairs.named_drafters`.

    Raises:
      UserError: an entry has an unknown field or a value outside its domain, or there is none.
    """
    listed = entries_of("evaluate.settings", entries)
    return list(dict.fromkeys(setting(entry, named) for entry in listed))


def entries_of(name: str, given: Any) -> list[Mapping[str, Any]]:
    """Returns the settings that a field of a config has; see `expand`.

    Args:
      name: of the field.
      given: its value.

    Raises:
      UserError: it is no list of mappings, or an empty one.
    """
    listed = isinstance(given, Iterable) and not isinstance(given, str) and not _is_mapping(given)
    entries = list(given) if listed else None
    if entries is None or not all(map(_is_mapping, entries)):
        raise UserError(f"{name} must be a list of settings, each a mapping")
    if not entries:
        raise UserError(f"{name} is empty; give it at least one setting")
    return entries


def _is_mapping(value: Any) -> bool:
    return hasattr(value, "keys")  # a ConfigDict is no Mapping


def setting(given: Mapping[str, Any], named: Named = _NONE) -> Setting:
    """Returns the setting that one entry describes; see `expand`."""
    try:
        return _setting(_spelled_out(dict(given), named))
    except UserError as error:
        shown = " ".join(f"{key}={value}" for key, value in given.items())
        raise UserError(f"setting {shown}: {error}") from None


def _spelled_out(given: dict[str, Any], named: Named) -> dict[str, Any]:
    """Returns a setting with the fields that the name of its drafter stands for."""
    name = given.get("drafter")
    if not isinstance(name, str) or name not in named:
        return given
    own = dict(named[name])
    if twice := sorted(set(own) & set(given) - {"drafter"}):
        raise UserError(f"the pair's drafter {name} has a {twice[0]} already; leave it out here")
    return {field: value for field, value in given.items() if field != "drafter"} | own


def _setting(given: dict[str, Any]) -> Setting:
    if odd := [key for key in given if not isinstance(key, str)]:
        raise UserError(f"{odd[0]!r} is no field; the names of fields are texts")
    name = given.pop("method", next(iter(methods.METHODS)))
    method = methods.METHODS[values.choice("method", name, methods.METHODS)]
    try:
        fields, known = method.read(given)
    except entry.Missing as missing:
        others = [field for field in given if not missing.field.endswith(field)]  # middle_...
        if mistyped := difflib.get_close_matches(missing.field, others, 1, 0.8):
            told = f"{mistyped[0]} is unknown; did you mean {missing.field}?"
            raise UserError(told) from None
        raise
    known |= {"temperature", "seed"}
    if unknown := sorted(set(given) - known):
        told = f"known: {', '.join(sorted(known))}"
        meant = difflib.get_close_matches(unknown[0], sorted(known | {"method"}), 1, 0.8)
        if meant and len(unknown) == 1:
            told = f"did you mean {meant[0]}?"
        raise UserError(f"{', '.join(unknown)} unknown here; {told}")
    temperature = entry.number(given, "temperature", 0.0)
    if temperature < 0:
        raise UserError(f"temperature={temperature} must be at least 0")
    seed = values.whole("seed", given.get("seed", 0))
    return Setting(method, temperature=temperature, seed=seed, **fields)


def from_fields(row: Mapping[str, Any]) -> Setting:
    """Reads `Setting.fields` back, from a row that may hold more."""
    own: dict[str, Any] = {
        field.name: pairs_of(row[field.name])
        if isinstance(row[field.name], Mapping)
        else row[field.name]
        for field in dataclasses.fields(Setting)
        if field.name not in ("method", "drafting")
    }
    return Setting(methods.named(row["method"]), drafting=drafting.of_row(row), **own)


def find(text: str, settings: Sequence[Setting]) -> Setting:
    """Returns the setting that a text names, or of whose name it has words enough.

    Raises:
      UserError: it is none of them, or several.
    """
    words = set(text.split())
    exact = [s for s in settings if str(s) == text]
    found = exact or [s for s in settings if words <= set(str(s).split())]
    if len(found) == 1:
        return found[0]
    shown = "; ".join(sorted(map(str, found or settings))[:_SHOWN])
    trouble = "is several settings" if found else "is none of the settings"
    raise UserError(f"{text!r} {trouble} that were measured: {shown}")
