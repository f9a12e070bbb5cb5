"""A setting: everything that decides what is decoded and how, as one frozen value."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from speccascade import head, rules, verify
from speccascade.decode import LookupDrafter
from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.knobs import HeadKnob

TRUNCATIONS = ("top_k", "top_p", "min_p")

# The fields that each way of decoding takes beside method, temperature and seed.
_BOTH = tuple(f"{who}_{kind}" for who in ("drafter", "expert") for kind in TRUNCATIONS)
_FIELDS = {
    "speculative": (
        "rule",
        "draft_length",
        "verifier",
        "drafter",
        "middle_rule",
        "middle_draft_length",
        *_BOTH,
    ),
    "autoregressive_expert": tuple(f"expert_{kind}" for kind in TRUNCATIONS),
    "autoregressive_drafter": tuple(f"drafter_{kind}" for kind in TRUNCATIONS),
    "token_cascade": ("rule", *_BOTH),
    "sequence_cascade": ("threshold", *_BOTH),
}
METHODS = tuple(_FIELDS)
DRAFTERS = {"lookup": LookupDrafter}  # what drafts without a model, by the names that settings use

Pairs = tuple[tuple[str, float | head.Reference], ...]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    Attributes:
      method: one of `METHODS`.
      rule: the rule's registry name; None where the method has none.
      knobs: the rule's knobs, or the threshold of a sequence cascade, by name.
      draft_length: N of a speculative method, else None.
      verifier: of a speculative method, else None.
      temperature: 0 for greedy.
      drafter_truncation: limits on the drafter by name, none for none.
      expert_truncation: the same for the expert.
      seed: of the random draws.
      middle_rule: what the drafter and the pair's middle model draft by; None where the drafter
        drafts alone.
      middle_knobs: that rule's knobs.
      middle_draft_length: tokens that the drafter writes between two passes of the middle model.
      drafter: what drafts, one of `DRAFTERS`; None for the pair's models.
      drafter_knobs: its parameters.
    """

    method: str
    rule: str | None = None
    knobs: Pairs = ()
    draft_length: int | None = None
    verifier: str | None = None
    temperature: float = 0.0
    drafter_truncation: Pairs = ()
    expert_truncation: Pairs = ()
    seed: int = 0
    middle_rule: str | None = None
    middle_knobs: Pairs = ()
    middle_draft_length: int | None = None
    drafter: str | None = None
    drafter_knobs: Pairs = ()

    def fields(self) -> dict[str, Any]:
        """Returns the JSON-ready fields; `from_fields` reads them back.

        Those of a middle model or of a drafter without a model only where that drafts.
        """
        return {
            name: dict(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name not in _unused(vars(self))
        }

    @classmethod
    def from_fields(cls, row: Mapping[str, Any]) -> "Setting":
        """Reads `fields` back, from a row that may hold more."""
        unused = _unused(row)
        names = [f.name for f in dataclasses.fields(cls) if f.name not in unused]
        return cls(**{n: _pairs(row[n]) if isinstance(row[n], dict) else row[n] for n in names})

    @property
    def needs_drafting_model(self) -> bool:
        """Whether a model of the pair beside the expert decodes."""
        return self.method != "autoregressive_expert" and self.drafter is None

    @property
    def label(self) -> str:
        """The method's name in tables: what stays when its knobs are chosen."""
        name = self.rule if self.method == "speculative" else self.method
        if self.method == "token_cascade":
            name += f" {self.rule}"
        if self.middle_rule is not None:
            name += f" over {self.middle_rule}"
        if self.drafter is not None:
            name += f" over {self.drafter}"
        limits = [f"drafter {k}" for k, _ in self.drafter_truncation]
        limits += [f"expert {k}" for k, _ in self.expert_truncation]
        return ", ".join([name, *limits])

    @property
    def choices(self) -> str:
        """What is chosen within a method, as text: knobs, truncations, draft length, verifier."""
        parts = [f"{k}={v:g}" for k, v in self.knobs]
        parts += [f"{k}={v:g}" for k, v in self.drafter_truncation + self.expert_truncation]
        if self.draft_length is not None:
            parts.append(f"N={self.draft_length}")
        parts += [f"{k}={v:g}" for k, v in self.drafter_knobs]
        parts += [f"middle_{k}={v:g}" for k, v in self.middle_knobs]
        if self.middle_draft_length is not None:
            parts.append(f"n={self.middle_draft_length}")
        if self.verifier is not None:
            parts.append(self.verifier)
        return " ".join(parts)

    def __str__(self) -> str:
        tail = [f"T={self.temperature:g}"] + ([f"seed={self.seed}"] if self.seed else [])
        return " ".join(part for part in (self.label, self.choices, *tail) if part)


def _unused(fields: Mapping[str, Any]) -> set[str]:
    """Returns the names of the fields that say nothing, and that rows leave out."""
    unused = set()
    if fields.get("middle_rule") is None:
        unused |= {"middle_rule", "middle_knobs", "middle_draft_length"}
    if fields.get("drafter") is None:
        unused |= {"drafter", "drafter_knobs"}
    return unused


def _pairs(mapping: Mapping[str, float | str]) -> Pairs:
    return tuple(
        (key, head.Reference(value) if isinstance(value, str) else value)
        for key, value in sorted(mapping.items())
    )


def expand(entries: Iterable[Mapping[str, Any]]) -> list[Setting]:
    """Returns the distinct settings of a grid, in its order.

    Args:
      entries: one mapping per setting, from `sweep`: `method` ("speculative" by default), `rule`
        and its knobs, `draft_length`, `verifier` ("token" by default), `temperature`, `seed`,
        `threshold`, and `drafter_` or `expert_` `top_k`, `top_p`, `min_p`. Where a middle model
        drafts: `middle_rule` with its knobs, each named `middle_` and the knob, such as
        `middle_alpha`, and `middle_draft_length`. Where no model drafts: `drafter`, one of
        `DRAFTERS`, with its parameters, such as `max_ngram` and `min_ngram`.

    Raises:
      UserError: an entry has an unknown field or a value outside its domain, or there is none.
    """
    entries = None if isinstance(entries, (str, Mapping)) else list(entries)
    if entries is None or not all(isinstance(entry, Mapping) for entry in entries):
        raise UserError("evaluate.settings must be a list of settings, each a mapping")
    settings = list(dict.fromkeys(map(setting, entries)))
    if not settings:
        raise UserError("evaluate.settings is empty; give it at least one setting")
    return settings


def setting(entry: Mapping[str, Any]) -> Setting:
    """Returns the setting that one entry describes; see `expand`."""
    try:
        return _setting(dict(entry))
    except UserError as error:
        shown = " ".join(f"{key}={value}" for key, value in entry.items())
        raise UserError(f"setting {shown}: {error}") from None


def _setting(given: dict[str, Any]) -> Setting:
    method = given.pop("method", "speculative")
    if method not in _FIELDS:
        raise UserError(f"method {method!r} is unknown; choose one of: {', '.join(METHODS)}")
    takes = _FIELDS[method]
    known = {"temperature", "seed", *takes}
    rule, knobs, middle, middle_knobs, drafter_knobs = None, {}, None, {}, {}
    if "rule" in takes:
        rule, knobs = _rule(given, method)
        known |= set(knobs)
        if "middle_rule" in takes and given.get("middle_rule") is not None:
            middle, middle_knobs = _rule(given, method, "middle_")
            known |= {f"middle_{key}" for key in middle_knobs}
        if "drafter" in takes and given.get("drafter") is not None:
            drafter_knobs = _drafter(given, rule)
            known |= set(drafter_knobs)
    elif "threshold" in takes:
        knobs = {"threshold": _number(given, "threshold", required=True)}
    if unknown := sorted(set(given) - known):
        raise UserError(f"{', '.join(unknown)} unknown here; known: {', '.join(sorted(known))}")
    temperature = _number(given, "temperature", 0.0)
    if temperature < 0:
        raise UserError(f"temperature={temperature} must be at least 0")
    return Setting(
        method=method,
        rule=rule,
        knobs=_pairs(knobs),
        draft_length=_draft_length(given, "draft_length") if "draft_length" in takes else None,
        verifier=_verifier(given) if "verifier" in takes else None,
        temperature=temperature,
        drafter_truncation=_truncation(given, "drafter"),
        expert_truncation=_truncation(given, "expert"),
        seed=_integer(given, "seed", 0),
        middle_rule=middle,
        middle_knobs=_pairs(middle_knobs),
        middle_draft_length=_middle_draft_length(given, middle),
        drafter=given.get("drafter"),
        drafter_knobs=_pairs(drafter_knobs),
    )


def _rule(
    given: Mapping[str, Any], method: str, prefix: str = ""
) -> tuple[str, dict[str, float | head.Reference]]:
    """Returns a rule with its knobs, read from the fields of that prefix."""
    if f"{prefix}rule" not in given:
        raise UserError("it names no rule; give it one")
    name = given[f"{prefix}rule"]
    row = rules.spec(name)
    if method == "token_cascade" and not row.sequential:
        known = ", ".join(n for n, r in rules.RULES.items() if r.sequential)
        raise UserError(f"a token cascade's rule must decide before the expert: {known}")
    own = {}
    for key, knob in row.knobs.items():
        field = f"{prefix}{key}"
        if given.get(field, knob.default) is None:
            raise UserError(f"rule {name} needs {field}; its domain is {knob.domain}")
        if isinstance(knob, HeadKnob):
            own[key] = head.reference(given[field])
            continue
        read = _integer if knob.static else _number
        own[key] = read(given, field, knob.default)
    rules.make(name, **own)  # checks the domains
    return name, own


def _drafter(given: Mapping[str, Any], rule: str) -> dict[str, int]:
    """Returns the parameters of a drafter without a model."""
    name = given["drafter"]
    if name not in DRAFTERS:
        raise UserError(
            f"drafter {name!r} is unknown; choose one of: {', '.join(DRAFTERS)}, or leave it out: "
            "the pair's model drafts then"
        )
    rules.check_without_distribution(rule)
    if given.get("middle_rule") is not None:
        raise UserError(f"a middle_rule needs models that draft; leave it out, or drafter={name}")
    if limits := [f"drafter_{kind}" for kind in TRUNCATIONS if f"drafter_{kind}" in given]:
        raise UserError(f"{', '.join(limits)} does nothing to drafter={name}; leave it out")
    fields = dataclasses.fields(DRAFTERS[name])
    knobs = {f.name: _integer(given, f.name, f.default) for f in fields}
    DRAFTERS[name](**knobs)  # checks the domains
    return knobs


def _draft_length(given: Mapping[str, Any], field: str) -> int:
    length = _integer(given, field, None)
    if length is None:
        raise UserError(f"it has no {field}; give it one, at least 1")
    if length < 1:
        raise UserError(f"{field}={length} must be at least 1")
    return length


def _middle_draft_length(given: Mapping[str, Any], middle_rule: str | None) -> int | None:
    if middle_rule is not None:
        return _draft_length(given, "middle_draft_length")
    if given.get("middle_draft_length") is not None:
        raise UserError("it has a middle_draft_length and no middle_rule; give it both or neither")
    return None


def _verifier(given: Mapping[str, Any]) -> str:
    name = given.get("verifier", "token")
    if name not in verify.METHODS:
        raise UserError(f"verifier {name!r} is unknown; choose one of: {', '.join(verify.METHODS)}")
    return name


def _truncation(given: Mapping[str, Any], who: str) -> Pairs:
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
    return _pairs(limits)


def _number(
    given: Mapping[str, Any], field: str, default: float | None = None, required: bool = False
) -> float:
    value = given.get(field, default)
    if value is None and required:
        raise UserError(f"it has no {field}; give it one")
    return values.number(field, value) + 0.0  # no negative zero: it would be another setting


def _integer(given: Mapping[str, Any], field: str, default: int | None) -> int | None:
    value = given.get(field, default)
    return None if value is None else values.whole(field, value)


def digest(value: Any) -> str:
    """Returns 16 hex digits that identify a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
