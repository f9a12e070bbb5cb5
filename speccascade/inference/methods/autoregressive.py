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

    def prepare(self, room, settings, rules, rows):
        """The model stands in the expert's place; what it counts is booked as its own."""
        pair = room.pair
        if self is EXPERT:
            return lambda: decode.autoregressive(
                pair.expert, pair.params["expert"], rows, room.max_new_tokens, layout=pair.layout
            )
        rows = rows._replace(expert_truncation=rows.drafter_truncation, drafter_truncation=None)
        alone = pair.layout and pair.layout.alone("drafter")
        return lambda: _as_drafter(
            decode.autoregressive(
                pair.drafter, pair.params["drafter"], rows, room.max_new_tokens, layout=alone
            )
        )


def _as_drafter(output: decode.Output) -> decode.Output:
    stats = output.stats
    calls = {"drafter": stats.expert_calls}
    stats = stats._replace(drafter_calls=calls, expert_calls=stats.expert_calls * 0)
    return output._replace(stats=stats)


EXPERT, DRAFTER = Autoregressive("expert"), Autoregressive("drafter")
