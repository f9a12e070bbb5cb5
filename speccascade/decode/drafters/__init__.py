"""Who writes the block: a model, a cascade of two, a lookup in the text, both, or nobody."""

from speccascade.decode.drafters.cascade import CascadeDrafter
from speccascade.decode.drafters.interface import Dense, Draft, Drafter, OneHot, Request
from speccascade.decode.drafters.lookup import LookupDrafter
from speccascade.decode.drafters.lookup_or_model import LookupOrModelDrafter
from speccascade.decode.drafters.model import ModelDrafter
from speccascade.decode.drafters.none import NoDrafter

# The roles of the models that drafters have.
ROLES = tuple(dict.fromkeys(role for of in (ModelDrafter, CascadeDrafter) for role in of.roles))

__all__ = [
    "ROLES",
    "CascadeDrafter",
    "Dense",
    "Draft",
    "Drafter",
    "LookupDrafter",
    "LookupOrModelDrafter",
    "ModelDrafter",
    "NoDrafter",
    "OneHot",
    "Request",
]
