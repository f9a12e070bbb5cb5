"""Blocks are drafted, scored in one pass and kept by a rule: speculative cascades, and speculative
decoding, whose rule is `spec`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from speccascade import decode
from speccascade import rules as rules_lib
from speccascade.inference import drafting, entry
from speccascade.inference.setting import Method

# What a rule is at temperature 0, where both distributions have one token each.
_GREEDY = {"opt": "diff", "token_v1": "diff", "lossy": "spec", "lenient": "spec"}


class Speculative(Method):
    """A rule's target distribution, by blocks."""

    name = "speculative"
    in_blocks = True
    has_rule = True
    rows: Mapping[str, Any] = rules_lib.RULES

    def read(self, given):
        """Takes a rule, a draft length, a verifier, a drafting, and limits on both models."""
        rule, knobs, known = entry.rule(given, rows=self.rows)
        drafted, own = drafting.read(given, rule)
        limits, limited = entry.truncations(given, "drafter", "expert")
        verifier, verified = self.verifier(given)
        fields = {
            "rule": rule,
            "knobs": knobs,
            "draft_length": entry.length(given, "draft_length"),
            "verifier": verifier,
            "drafting": drafted,
            **limits,
        }
        return fields, {*known, *own, *limited, *verified, "draft_length"}

    def verifier(self, given):
        """Returns what verifies, and the fields that say so."""
        return entry.verifier(given), {"verifier"}

    def label(self, setting):
        """Returns the rule's name."""
        return setting.rule

    def program(self, setting):
        """Rules mix freely, but for those that need no drafter pass at the bonus position: beside
        others they would be charged for it."""
        uses_q = rules_lib.definition(setting.rule).uses_q
        return uses_q, setting.draft_length, setting.verifier, setting.drafting.program

    def trouble(self, setting, pair):
        """Returns what the drafting lacks."""
        return setting.drafting.trouble(pair)

    def decoder(self, room, setting):
        """Returns the loop of blocks."""
        pair = room.pair
        drafter, own = setting.drafting.drafter(pair)
        decoder = decode.Decoder(
            pair.expert,
            drafter,
            setting.draft_length,
            room.max_new_tokens,
            setting.verifier,
            layout=pair.layout,
        )
        return decoder, {"drafter": own, "expert": pair.params["expert"]}

    def scored(self, setting, counts):
        """A pass scores a whole block, however much of it was drafted or kept."""
        blocks = counts["expert_calls"]
        # Where nothing is drafted at the bonus position, the next block's first pass reads two.
        rereads = not rules_lib.definition(setting.rule).uses_q
        return {
            **setting.drafting.scored(counts, blocks, rereads),
            "expert": blocks * (setting.draft_length + 1),
        }

    def law(self, setting):
        """One verifier or another, blocks of any length: the same target. At temperature 0 some
        rules are one."""
        drafted = setting.drafting.law
        found = dataclasses.replace(
            super().law(setting), draft_length=None, verifier=None, drafting=drafted
        )
        if setting.temperature > 0:
            return found
        rule = _GREEDY.get(setting.rule, setting.rule)
        return dataclasses.replace(found, rule=rule, knobs=() if rule == "spec" else setting.knobs)


SPECULATIVE = Speculative()
