"""Drafted by a cascade of the pair's drafter and its middle model: three models in all."""

import dataclasses

from speccascade import decode, rules
from speccascade.errors import UserError
from speccascade.inference import entry
from speccascade.inference.setting import Drafting, Pairs, pairs_of

_FIELDS = ("middle_rule", "middle_knobs", "middle_draft_length")


@dataclasses.dataclass(frozen=True)
class ByCascade(Drafting):
    """A rule between the drafter and the middle model; see `decode.CascadeDrafter`.

    Attributes:
      rule: the rule's registry name.
      knobs: its knobs.
      draft_length: tokens that the drafter writes between two passes of the middle model; None
        where only the law of answers is meant.
    """

    rule: str
    knobs: Pairs
    draft_length: int | None

    name = "cascade"
    _ROLES = decode.CascadeDrafter.roles
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
        made = cls(name, knobs, entry.length(given, "middle_draft_length"))
        return made, {*known, "middle_draft_length"}

    @classmethod
    def of_row(cls, row):
        """Takes rows with a `middle_rule`."""
        if row.get("middle_rule") is None:
            return None
        rule, knobs, length = (row[name] for name in _FIELDS)
        return cls(rule, pairs_of(knobs), length)

    def fields(self):
        """Returns the middle rule, its knobs, and the tokens of a round."""
        values = self.rule, dict(self.knobs), self.draft_length
        return dict(zip(_FIELDS, values, strict=True))

    @property
    def over(self):
        """The middle rule's name."""
        return self.rule

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
        """The rule with its static knobs, and the tokens of a round."""
        known = rules.spec(self.rule).knobs
        static = tuple((k, v) for k, v in self.knobs if known[k].static)
        return self.rule, static, self.draft_length

    @property
    def law(self):
        """The tokens of a round touch no law."""
        return dataclasses.replace(self, draft_length=None)

    def trouble(self, pair):
        """Returns what a pair without a middle model, or on a mesh, lacks."""
        if missing := [role for role in self._ROLES if role not in pair.models]:
            return (
                f"names a middle_rule and pair {pair.name} has no {missing[0]} model; give the "
                "pair one, {drafter: ..., middle: ..., expert: ...}"
            )
        if pair.layout is not None:
            return "drafts with three models, which decode on one device; leave out the mesh"
        return None

    def longest(self):
        """Returns the tokens of a round."""
        return self.draft_length

    def drafter(self, pair):
        """Returns the drafter, and both models' parameters."""
        models = (pair.models[role] for role in self._ROLES)
        made = decode.CascadeDrafter(*models, self.draft_length)
        return made, {role: pair.params[role] for role in self._ROLES}

    def rows(self, settings):
        """Returns the middle rule, its knobs [B]."""
        known = rules.spec(self.rule).knobs
        values = {k: [dict(s.drafting.knobs)[k] for s in settings] for k in known}
        columns = {k: own[0] if known[k].static else own for k, own in values.items()}
        return rules.make(self.rule, **columns)

    def scored(self, counts, blocks, rereads):
        """Returns what both models scored: the middle one whole rounds."""
        rounds = counts["middle_calls"]
        small_rereads = rereads or not rules.spec(self.rule).uses_q
        return {
            "drafter": counts["drafter_calls"] + rounds * small_rereads,
            "middle": rounds * (self.draft_length + 1 + rereads),
        }
