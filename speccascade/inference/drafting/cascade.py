"""Drafted by a cascade of two models of the pair: with the expert three models in all."""

import dataclasses

from speccascade import decode, rules
from speccascade.errors import UserError
from speccascade.inference import entry
from speccascade.inference.setting import Drafting, Pairs, model_name, pairs_of

_FIELDS = ("middle_rule", "middle_knobs", "middle_draft_length")


@dataclasses.dataclass(frozen=True)
class ByCascade(Drafting):
    """A rule between the drafter and the middle model; see `decode.CascadeDrafter`.

    Attributes:
      rule: the rule's registry name.
      knobs: its knobs.
      draft_length: tokens that the drafter writes between two passes of the middle model; None
        where only the law of answers is meant.
      models: the pair's names of the drafter and the middle model.
    """

    rule: str
    knobs: Pairs
    draft_length: int | None
    models: tuple[str, ...] = decode.CascadeDrafter.roles

    name = "cascade"
    has_q = False  # its distribution comes of whole rounds

    @classmethod
    def read(cls, given, rule):
        """Takes settings with a `middle_rule`."""
        if given.get("middle_rule") is None:
            if given.get("middle_draft_length") is not None:
                raise UserError(
                    "it has a middle_draft_length and no middle_rule; give it both or neither"
                )
            return None, {"middle_rule", "middle_draft_length"}
        name, knobs, known = entry.rule(given, "middle_")
        length = entry.length(given, "middle_draft_length")
        models = tuple(model_name(given, role, role) for role in decode.CascadeDrafter.roles)
        return cls(name, knobs, length, models), {*known, "middle_draft_length", *cls.models}

    @classmethod
    def of_row(cls, row):
        """Takes rows with a `middle_rule`."""
        if row.get("middle_rule") is None:
            return None
        rule, knobs, length = (row[name] for name in _FIELDS)
        return cls(rule, pairs_of(knobs), length, tuple(row.get(role, role) for role in cls.models))

    def fields(self):
        """Returns the middle rule, its knobs, the tokens of a round, and models of other names."""
        values = self.rule, dict(self.knobs), self.draft_length
        return dict(zip(_FIELDS, values, strict=True)) | dict(self._named)

    @property
    def _named(self):
        both = zip(decode.CascadeDrafter.roles, self.models, strict=True)
        return [(role, name) for role, name in both if role != name]

    @property
    def over(self):
        """The middle rule's name, and the models where they are others than usual."""
        return f"{self.rule} of {' and '.join(self.models)}" if self._named else self.rule

    @property
    def choices(self):
        """The middle rule's knobs, and the tokens of a round."""
        length = [] if self.draft_length is None else [f"n={self.draft_length}"]
        return [f"middle_{k}={v:g}" for k, v in self.knobs] + length

    @property
    def heads(self):
        """The head of a learned middle rule."""
        return [value for name, value in self.knobs if name == "head"]

    @property
    def program(self):
        """The rule with its static knobs, the tokens of a round, and the models."""
        known = rules.definition(self.rule).knobs
        static = tuple((k, v) for k, v in self.knobs if known[k].static)
        return self.rule, static, self.draft_length, self.models

    @property
    def law(self):
        """The tokens of a round touch no law."""
        return dataclasses.replace(self, draft_length=None)

    def trouble(self, pair):
        """Returns what a pair without one of the models lacks."""
        if missing := [name for name in self.models if name not in pair.models]:
            return (
                f"names a middle_rule and pair {pair.name} has no {missing[0]} model; give the "
                "pair one, {drafter: ..., middle: ..., expert: ...}"
            )
        return None

    def longest(self):
        """Returns the tokens of a round."""
        return self.draft_length

    def drafter(self, pair):
        """Returns the drafter, and both models' parameters."""
        small, middle = map(pair.models.__getitem__, self.models)
        made = decode.CascadeDrafter(small, middle, self.draft_length)
        of_roles = zip(made.roles, self.models, strict=True)
        return made, {role: pair.params[name] for role, name in of_roles}

    def rows(self, settings):
        """Returns the middle rule, its knobs [B]."""
        known = rules.definition(self.rule).knobs
        values = {k: [dict(s.drafting.knobs)[k] for s in settings] for k in known}
        columns = {k: own[0] if known[k].static else own for k, own in values.items()}
        return rules.make(self.rule, **columns)

    def scored(self, counts, blocks, rereads):
        """Returns what both models scored: the middle one whole rounds."""
        rounds = counts["middle_calls"]
        small_rereads = rereads or not rules.definition(self.rule).uses_q
        small, middle = self.models
        return {
            small: counts["drafter_calls"] + rounds * small_rereads,
            middle: rounds * (self.draft_length + 1 + rereads),
        }
