"""Whether to draft at all, and how far, in batches: from what the models' passes cost there.

The more rows a batch has, the more a pass over N + 1 tokens costs beside one over a single token,
until no draft pays. What a setting promises of quality does not hang on the batch, so all that keep
the promise are candidates, and N = 0, the expert alone, is one of them. Each is weighed by its
tokens per block, as they were measured, and by the passes that a block takes.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from speccascade import rules
from speccascade.benchmark import clock, steps
from speccascade.benchmark.progress import Progress
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.engine import Engine
from speccascade.inference.formula import allowed_speedup
from speccascade.inference.setting import ByModel, Setting
from speccascade.models import memory

Pass = tuple[str, int]
"""A model's role and how many tokens of each row it reads."""

_REPEATS = 4  # passes of one timing
_ALONE: Pass = ("expert", 1)


class Fastest(NamedTuple):
    """What is chosen for a batch.

    Attributes:
      setting: the setting.
      speedup: over the expert alone in the same batch, as the formula has it.
    """

    setting: Setting
    speedup: float


def passes(setting: Setting) -> Counter[Pass] | None:
    """Returns how many passes a block takes; None where their number is not known beforehand."""
    if setting.method.alone == "expert":
        return Counter({_ALONE: 1})
    if not setting.method.in_blocks:
        return None
    scoring = Counter({("expert", setting.draft_length + 1): 1})
    if isinstance(setting.drafting, ByLookup):
        return scoring
    rule = rules.definition(setting.rule)
    if not isinstance(setting.drafting, ByModel) or rule.ends_draft is not None:
        return None
    role, size = setting.drafting.role, setting.draft_length
    if rule.uses_q:
        return scoring + Counter({(role, 1): size + 1})
    return scoring + Counter({(role, 2): 1, (role, 1): size - 1})


def fastest(tokens: Mapping[Setting, float], seconds: Mapping[Pass, float]) -> Fastest:
    """Returns the candidate that a batch's passes make the fastest; of equals the first.

    Args:
      tokens: of each candidate, per block; the expert alone is one of them.
      seconds: of each pass.
    """

    def weighed(setting: Setting) -> Fastest:
        if setting.method.alone == "expert":
            return Fastest(setting, 1.0)
        own = passes(setting)
        scoring = sum(n * seconds[which] for which, n in own.items() if which[0] == "expert")
        drafting = sum(n * seconds[which] for which, n in own.items() if which[0] != "expert")
        ratio = allowed_speedup(tokens[setting], drafting, scoring, seconds[_ALONE])
        return Fastest(setting, ratio)

    return max(map(weighed, tokens), key=lambda found: found.speedup)


def check(engine: Engine, settings: Iterable[Setting], batch_sizes: Sequence[int]) -> None:
    """Raises UserError where a batch is too large for this machine to time passes in.

    Args:
      engine: as for `measured`.
      settings: all that may come to be candidates.
      batch_sizes: rows.
    """
    wanted = {which for setting in settings for which in passes(setting) or ()}
    slots = _slots(engine, wanted)
    for batch in batch_sizes:
        needed = max(
            memory.of_pass(engine.pair.models[role], batch, width, slots) for role, width in wanted
        )
        memory.check(f"--batch_sizes={batch}", needed, "give smaller ones")


def _slots(engine: Engine, wanted: Iterable[Pass]) -> int:
    return engine.prompt_slots + engine.max_new_tokens + max(width for _, width in wanted)


def measured(
    engine: Engine, wanted: Sequence[Pass], batch_sizes: Sequence[int], trials: int
) -> Iterator[tuple[int, dict[Pass, float]]]:
    """Yields batch sizes with the seconds of each pass there.

    Args:
      engine: the pair, on one device, with the room of its prompts and answers.
      wanted: passes.
      batch_sizes: rows.
      trials: how often each is timed; the median counts.
    """
    pair = engine.pair
    position = engine.prompt_slots + engine.max_new_tokens // 2
    slots = _slots(engine, wanted)
    with Progress(print, len(batch_sizes)) as progress:
        for batch in batch_sizes:
            progress.begin_part()
            calls = {
                (role, width): steps.step(
                    pair.models[role], pair.params[role], batch, width, position, slots, _REPEATS
                )
                for role, width in wanted
            }
            clock.warm(calls, progress)
            found = clock.measure(calls, trials, lambda name: 0.0, progress)
            yield batch, {which: times.seconds / _REPEATS for which, times in found}
