"""No drafter: the expert alone, token by token."""

import dataclasses

import jax.numpy as jnp

from speccascade import rules as rules_lib
from speccascade.decode.drafters.interface import Draft, OneHot, WithoutModel, check_asks_nothing
from speccascade.errors import UserError


@dataclasses.dataclass(frozen=True)
class NoDrafter(WithoutModel):
    """Drafts nothing: with it, the decode step is plain autoregressive decoding of the expert."""

    def check(self, expert, size, rules, drafting):
        """Raises UserError where something would have to be drafted; see `Drafter.check`."""
        if size != 0 or any(rules_lib.uses_q(rule) for rule in rules):
            raise UserError("without a drafter the draft length is 0 and the rule is spec")
        check_asks_nothing(drafting)

    def draft(self, params, state, request, ends_draft, bonus):
        """Returns a block of no tokens; there is no q, and a rule that needs one is refused."""
        none = jnp.zeros_like(request.last)
        tokens = jnp.zeros((none.shape[0], 0), jnp.int32)
        return Draft(tokens, OneHot(tokens, tokens == 1), none, {}, none == 0), state
