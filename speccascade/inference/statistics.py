"""What is told of decoding: one definition each, from counts to a figure and its name in tables.

A new one is a row in `STATISTICS`: rows of results, the library's answers, tables and CSV have it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

from speccascade.inference.setting import Setting


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A figure of how a setting decoded.

    Attributes:
      heading: its name in tables.
      of: from the counts of `decode.Stats.by_name`, summed over examples, and the setting to the
        figure; None where the setting has none.
      digits: behind the point, in tables.
      in_main: whether the main tables have it, too.
      shown: whether any table has it.
    """

    heading: str
    of: Callable[[Mapping[str, float], Setting], float | None]
    digits: int = 3
    in_main: bool = True
    shown: bool = True


def finite(value: float) -> float | None:
    """Returns the value, None where JSON has no number for it."""
    return float(value) if math.isfinite(value) else None


def _ratio(above: str, below: str, exists: Callable[[Setting], bool]) -> Callable:
    def of(counts: Mapping[str, float], setting: Setting) -> float | None:
        there = exists(setting) and counts[below] > 0
        return finite(counts[above] / counts[below]) if there else None

    return of


def _by_token(setting: Setting) -> bool:
    return setting.verifier == "token"  # a block verifier decides on no single position


def _has_calls(setting: Setting) -> bool:
    return setting.method.in_blocks or setting.method.alone == "expert"


STATISTICS = {
    "tokens_per_expert_call": Statistic(
        "tokens per expert call", _ratio("emitted", "expert_calls", _has_calls), digits=2
    ),
    "rejection_rate": Statistic("rejection rate", _ratio("rejected", "tested", _by_token)),
    "tv_mean": Statistic("mean TV", _ratio("tv_sum", "tested", _by_token), shown=False),
    "deferral_rate": Statistic(
        "deferral rate", _ratio("deferral_sum", "emitted", lambda setting: True), in_main=False
    ),
}
