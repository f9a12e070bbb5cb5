"""Drafted by a lookup, and where nothing is found by a model of the pair."""

import dataclasses

from speccascade import decode
from speccascade.errors import UserError
from speccascade.inference.drafting.lookup import NAME, ByLookup
from speccascade.inference.setting import ByModel, Drafting, model_name


@dataclasses.dataclass(frozen=True)
class ByLookupOrModel(Drafting):
    """What followed the newest tokens, else what a model says; see `decode.LookupOrModelDrafter`.

    Attributes:
      lookup: what is looked for.
      model: who is asked otherwise.
    """

    lookup: ByLookup
    model: ByModel

    name = "lookup or model"
    has_q = False

    @classmethod
    def read(cls, given, rule):
        """Takes settings with `drafter="lookup"` and a model that drafts `otherwise`."""
        if given.get("otherwise") is None:
            return None, {"otherwise"}
        if given.get("drafter") != NAME:
            raise UserError(f"otherwise={given['otherwise']!r} needs drafter={NAME}")
        # Limits of the drafter are the model's.
        own = {field: given[field] for field in ("max_ngram", "min_ngram") if field in given}
        lookup, known = ByLookup.read({"drafter": NAME, **own}, rule)
        model = ByModel(model_name(given, "otherwise", NAME))
        if given.get("middle_rule") is not None:
            raise UserError("a middle_rule needs models that draft; leave it out, or otherwise")
        return cls(lookup, model), {*known, "otherwise"}

    @classmethod
    def of_row(cls, row):
        """Takes rows of a lookup that say who drafts otherwise."""
        if row.get("otherwise") is None:
            return None
        return cls(ByLookup.of_row(row), ByModel(row["otherwise"]))

    def fields(self):
        """Returns those of the lookup, and the model's role."""
        return {**self.lookup.fields(), "otherwise": self.model.role}

    @property
    def over(self):
        """Both names."""
        return f"{NAME} or {self.model.role}"

    @property
    def choices(self):
        """Those of the lookup."""
        return self.lookup.choices

    @property
    def program(self):
        """Those of both."""
        return *self.lookup.program, *self.model.program

    def trouble(self, pair):
        """Returns what a pair without the model lacks."""
        if self.model.role in pair.models:
            return None
        known = [role for role in pair.roles if role != "expert"]
        instead = f"choose one of: {', '.join(known)}" if known else "leave otherwise out"
        return f"asks otherwise={self.model.role} and pair {pair.name} has no such model; {instead}"

    def drafter(self, pair):
        """Returns the drafter, and the model's parameters."""
        model, params = self.model.drafter(pair)
        lookup, _ = self.lookup.drafter(pair)
        return decode.LookupOrModelDrafter(lookup, model.model), params

    def scored(self, counts, blocks, rereads):
        """Returns what the model scored at most: the first pass of a block reads N + 2 tokens."""
        return {self.model.role: counts["drafter_calls"] + counts["drafted"] + blocks}
