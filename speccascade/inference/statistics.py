"""What is told of decoding: one definition each, from counts to a figure and its name in tables.

A new one is a row in `STATISTICS`: rows of results, the library's answers, tables and CSV have it.

Counts are those of `decode.Stats.by_name` and, of what was decoded in blocks, `kept_0` to `kept_N`:
the blocks of which so many drafted tokens were kept.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from speccascade import decode
from speccascade.inference.setting import Setting


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A figure of how a setting decoded.

    Attributes:
      heading: its name in tables.
      of: from counts, summed over examples, and the setting to the figure, or the figures of each
        drafted position; None where the setting has none.
      digits: behind the point, in tables.
      in_main: whether the main tables have it, too.
      shown: whether a table has it that was not asked for it.
    """

    heading: str
    of: Callable[[Mapping[str, float], Setting], float | list[float] | None]
    digits: int = 3
    in_main: bool = True
    shown: bool = True


def finite(value: float | np.ndarray) -> float | None:
    """Returns the value, None where JSON has no number for it."""
    return float(value) if math.isfinite(value) else None


def counts(output: decode.Output, setting: Setting) -> dict[str, float]:
    """Returns the counts of one answer.

    Args:
      output: of its row, without the batch's axis.
      setting: how it was decoded.
    """
    found = {name: float(value) for name, value in output.stats.by_name().items()}
    if setting.method.in_blocks:
        kept = np.asarray(output.blocks)[: int(found["expert_calls"])] - 1  # less the verifier's
        if len(kept):  # the last block may have ended within its draft
            kept[-1] = found["accepted"] - kept[:-1].sum()
        blocks = np.bincount(kept, minlength=setting.draft_length + 1)
        found |= {f"kept_{i}": float(count) for i, count in enumerate(blocks)}
    return found


def _ratio(above: str, below: str, exists: Callable[[Setting], bool]) -> Callable:
    def of(counts: Mapping[str, float], setting: Setting) -> float | None:
        there = exists(setting) and counts[below] > 0
        return finite(counts[above] / counts[below]) if there else None

    return of


def _by_token(setting: Setting) -> bool:
    return setting.verifier == "token"  # a block verifier decides on no single position


def _in_blocks(setting: Setting) -> bool:
    return setting.method.in_blocks


def _by_position(counts: Mapping[str, float], setting: Setting) -> list[float] | None:
    """Returns in which part of all blocks the first, second, ... drafted token was kept."""
    if not setting.method.in_blocks or "kept_0" not in counts:
        return None
    kept = np.array([counts[f"kept_{i}"] for i in range(setting.draft_length + 1)])
    if not kept.sum() > 0:  # answers of an older version have no such counts
        return None
    return (kept[:0:-1].cumsum()[::-1] / kept.sum()).tolist()


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
    "acceptance_of_drafted": Statistic(
        "acceptance of drafted", _ratio("accepted", "drafted", _in_blocks), shown=False
    ),
    "acceptance_by_position": Statistic(
        "acceptance by position", _by_position, digits=2, shown=False
    ),
}
