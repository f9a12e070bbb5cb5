"""The drafter writes the whole answer; where it was unsure, the expert writes it again."""

import numpy as np

from speccascade import decode
from speccascade.inference import entry
from speccascade.inference.methods.autoregressive import DRAFTER, EXPERT
from speccascade.inference.setting import Method, pairs_of


class SequenceCascade(Method):
    """A cascade without speculation, answer by answer."""

    name = "sequence_cascade"
    in_order = False

    def read(self, given):
        """Takes a threshold and limits on both models."""
        threshold = entry.number(given, "threshold", required=True)
        limits, limited = entry.truncations(given, "drafter", "expert")
        return {"knobs": pairs_of({"threshold": threshold}), **limits}, {"threshold", *limited}

    def prepare(self, room, settings, rules, rows):
        """Returns what runs both models one after the other."""
        pair = room.pair
        models = pair.drafter, pair.expert
        thresholds = np.array([dict(s.knobs)["threshold"] for s in settings])
        return lambda: decode.sequence_cascade(
            *models, pair.params, thresholds, rows, room.max_new_tokens, pair.layout
        )

    def costs(self):
        """It runs both models."""
        return EXPERT, DRAFTER


SEQUENCE_CASCADE = SequenceCascade()
