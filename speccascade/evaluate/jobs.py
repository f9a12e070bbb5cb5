"""What a sweep has to do: one job per row of `results.jsonl`."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from speccascade.inference.methods import ORACLE, SPECULATIVE
from speccascade.inference.setting import Setting

QUALITY, TEACHER_FORCED, TIMING = "quality", "teacher_forced", "timing"


@dataclasses.dataclass(frozen=True)
class Job:
    """One row to be made.

    Attributes:
      kind: `QUALITY`, `TEACHER_FORCED` or `TIMING`.
      setting: what is measured.
      split: whose examples.
      num_examples: the first so many of the split.
      trials: timings of each example; None for a row of another kind.
    """

    kind: str
    setting: Setting
    split: str
    num_examples: int
    trials: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} of {self.setting} on {self.split}"


def plan(settings: Iterable[Setting], config: Mapping[str, Any]) -> list[Job]:
    """Returns the jobs of a sweep: for every split the quality of each setting, what its rule does
    on the reference answers, then its timing.

    Settings that differ in nothing but the seed are timed once, with the first of their seeds.
    Nothing is drafted on the references: settings that differ in what drafting needs share a row.

    Args:
      settings: the grid.
      config: the config's `evaluate` section.
    """
    settings = list(settings)
    first_seed: dict[Setting, Setting] = {}
    for setting in settings:
        first_seed.setdefault(dataclasses.replace(setting, seed=0), setting)
    jobs = [
        Job(QUALITY, setting, split, count)
        for split, count in config["splits"].items()
        for setting in settings
    ]
    forced = teacher_forced(settings)
    jobs += [
        Job(TEACHER_FORCED, setting, split, count)
        for split, count in config["splits"].items()
        for setting in forced
    ]
    timing = config["timing"]
    for split, count in config["splits"].items():
        used = min(timing["num_examples"], count)
        if used:
            jobs += [Job(TIMING, s, split, used, timing["trials"]) for s in first_seed.values()]
    return jobs


def teacher_forced(settings: Iterable[Setting]) -> list[Setting]:
    """Returns the settings that are measured on reference answers, the oracles before the rules.

    There is one oracle for each temperature at which a rule decides. Drafting makes no difference;
    where the models alone have no q, a rule is left out.
    """
    rules = [
        Setting(
            SPECULATIVE,
            s.rule,
            s.knobs,
            temperature=s.temperature,
            drafter_truncation=s.drafter_truncation,
            expert_truncation=s.expert_truncation,
        )
        for s in settings
        if s.method.has_rule and s.drafting.has_q
    ]
    oracles = [Setting(ORACLE, temperature=s.temperature) for s in rules]
    return list(dict.fromkeys(oracles + rules))
