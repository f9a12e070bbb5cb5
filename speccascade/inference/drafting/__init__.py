"""How blocks are drafted, one file each. A new one is a file here and a row in `DRAFTINGS`."""

from collections.abc import Mapping
from typing import Any

from speccascade.inference.drafting.cascade import ByCascade
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.drafting.lookup_or_model import ByLookupOrModel
from speccascade.inference.setting import ByModel, Drafting

# The first that finds itself named in a setting, or in a row, has it.
DRAFTINGS: tuple[type[Drafting], ...] = (
    ByLookupOrModel,
    ByLookup,
    ByCascade,
    ByModel,
)


def read(given: Mapping[str, Any], rule: str) -> tuple[Drafting, set[str]]:
    """Returns the drafting that a setting names, and the fields that draftings know.

    Raises:
      UserError: a field is not as it must be.
    """
    known: set[str] = set()
    for kind in DRAFTINGS:
        found, own = kind.read(given, rule)
        known |= own
        if found is not None:
            return found, known
    raise AssertionError("the last one takes all")


def of_row(row: Mapping[str, Any]) -> Drafting:
    """Returns the drafting that a row names."""
    return next(found for kind in DRAFTINGS if (found := kind.of_row(row)) is not None)
