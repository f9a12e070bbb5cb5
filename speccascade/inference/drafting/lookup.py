"""Drafted by a lookup in the row's own text: no model."""

import dataclasses

from speccascade import decode, rules
from speccascade.errors import UserError
from speccascade.inference import entry
from speccascade.inference.setting import TRUNCATIONS, Drafting

NAME = "lookup"


@dataclasses.dataclass(frozen=True)
class ByLookup(Drafting):
    """What followed the newest tokens where they stood before; see `decode.LookupDrafter`."""

    max_ngram: int = 3
    min_ngram: int = 1

    name = NAME
    has_q = False

    @classmethod
    def read(cls, given, rule):
        """Takes settings with `drafter="lookup"`."""
        if given.get("drafter") != NAME:
            return None, {"drafter"}
        rules.check_without_distribution(rule)
        if given.get("middle_rule") is not None:
            raise UserError("a middle_rule needs models that draft; leave it out, or drafter")
        if limits := [f"drafter_{kind}" for kind in TRUNCATIONS if f"drafter_{kind}" in given]:
            raise UserError(f"{', '.join(limits)} does nothing to drafter={NAME}; leave it out")
        names = [field.name for field in dataclasses.fields(cls)]
        own = {name: entry.integer(given, name, getattr(cls, name)) for name in names}
        decode.LookupDrafter(**own)  # checks the domains
        return cls(**own), {"drafter", *own}

    @classmethod
    def of_row(cls, row):
        """Takes rows whose drafter it is."""
        return cls(**row["drafter_knobs"]) if row.get("drafter") == NAME else None

    def fields(self):
        """Returns the drafter's name, and its lengths."""
        return {"drafter": NAME, "drafter_knobs": dataclasses.asdict(self)}

    @property
    def over(self):
        """Its name."""
        return NAME

    @property
    def choices(self):
        """The lengths of its n-grams."""
        return [f"{name}={value}" for name, value in dataclasses.asdict(self).items()]

    @property
    def program(self):
        """The lengths are static."""
        return NAME, self.max_ngram, self.min_ngram

    def drafter(self, pair):
        """Returns the drafter, which has no parameters."""
        return decode.LookupDrafter(**dataclasses.asdict(self)), ()

    def scored(self, counts, blocks, rereads):
        """Scores nothing."""
        return {}
