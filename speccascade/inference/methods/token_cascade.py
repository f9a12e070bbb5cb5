"""The drafter makes each token; where the rule defers, the expert makes it instead."""

import dataclasses

from speccascade import decode
from speccascade import rules as rules_lib
from speccascade.decode.sequential import CATCH_UP
from speccascade.errors import UserError
from speccascade.inference import entry
from speccascade.inference.methods.autoregressive import DRAFTER, EXPERT
from speccascade.inference.methods.speculative import SPECULATIVE
from speccascade.inference.setting import Method


class TokenCascade(Method):
    """A cascade without speculation, token by token."""

    name = "token_cascade"
    has_rule = True

    def read(self, given):
        """Takes a rule that decides before the expert, and limits on both models."""
        rule, knobs, known = entry.rule(given)
        if not rules_lib.definition(rule).sequential:
            able = ", ".join(n for n, r in rules_lib.RULES.items() if r.sequential)
            raise UserError(f"a token cascade's rule must decide before the expert: {able}")
        limits, limited = entry.truncations(given, "drafter", "expert")
        return {"rule": rule, "knobs": knobs, **limits}, {*known, *limited}

    def label(self, setting):
        """Returns its name with the rule's."""
        return f"{self.name} {setting.rule}"

    def program(self, setting):
        """A program has one rule."""
        return (setting.rule,)

    def prepare(self, room, settings, rules, rows):
        """Returns what runs the loop of tokens."""
        pair = room.pair
        models = pair.drafter, pair.expert
        return lambda: decode.token_cascade(
            *models, pair.params, rules[0], rows, room.max_new_tokens, pair.layout
        )

    def scored(self, setting, counts):
        """The expert catches up so many tokens a pass."""
        return {
            "drafter": counts["drafter_calls"],
            "expert": counts["expert_calls"] * CATCH_UP,
        }

    def costs(self):
        """It runs both models."""
        return EXPERT, DRAFTER

    def law(self, setting):
        """Its law is that of the speculative cascade with the same rule."""
        return SPECULATIVE.law(dataclasses.replace(setting, method=SPECULATIVE))


TOKEN_CASCADE = TokenCascade()
