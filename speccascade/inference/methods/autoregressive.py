"""One model decodes alone, a token per pass: the expert, what everything is compared with, or the
drafter."""

from speccascade import decode
from speccascade.inference import entry
from speccascade.inference.setting import Method


class Autoregressive(Method):
    """Plain decoding of one model."""

    def __init__(self, role: str):
        self.name = f"autoregressive_{role}"
        self.alone = role

    def read(self, given):
        """Takes limits on its model alone."""
        return entry.truncations(given, self.alone)

    def trouble(self, setting, pair):
        """The expert needs nobody."""
        return None if self is EXPERT else super().trouble(setting, pair)

    def decoder(self, room, setting):
        """The model stands in the expert's place."""
        pair, role = room.pair, self.alone
        layout = pair.layout and pair.layout.alone(role)
        own = pair.models[role], pair.params[role]
        return decode.alone(*own, room.max_new_tokens, layout=layout)

    def asked(self, rows):
        """The drafter's limits go with it."""
        if self is EXPERT:
            return rows
        return rows._replace(expert_truncation=rows.drafter_truncation, drafter_truncation=None)

    def booked(self, output):
        """What the drafter counts is booked as its own."""
        if self is EXPERT:
            return output
        stats = output.stats
        calls = {"drafter": stats.expert_calls}
        stats = stats._replace(drafter_calls=calls, expert_calls=stats.expert_calls * 0)
        return output._replace(stats=stats)


EXPERT, DRAFTER = Autoregressive("expert"), Autoregressive("drafter")
