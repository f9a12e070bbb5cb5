"""What a sweep has to do: one job per row of `results.jsonl`, keyed by all that it depends on."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from speccascade.evaluate.settings import Setting, digest

QUALITY, TIMING = "quality", "timing"


@dataclasses.dataclass(frozen=True)
class Job:
    """One row to be made.

    Attributes:
      kind: `QUALITY` or `TIMING`.
      setting: what is measured.
      split: whose examples.
      num_examples: the first so many of the split.
      trials: timings of each example; None for a quality row.
    """

    kind: str
    setting: Setting
    split: str
    num_examples: int
    trials: int | None = None

    def identity(self, provenance: Mapping[str, str]) -> dict[str, Any]:
        """Returns the fields that tell this row from every other, `key` among them.

        Args:
          provenance: of the run; see `run.provenance`.
        """
        fields = {
            "kind": self.kind,
            "split": self.split,
            "num_examples": self.num_examples,
            "trials": self.trials,
            **self.setting.fields(),
            **provenance,
        }
        return {"key": digest(fields), **fields}

    def __str__(self) -> str:
        return f"{self.kind} of {self.setting} on {self.split}"


def plan(settings: Iterable[Setting], config: Mapping[str, Any]) -> list[Job]:
    """Returns the jobs of a sweep: for every split the quality of each setting, then its timing.

    Settings that differ in nothing but the seed are timed once, with the first of their seeds.

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
    timing = config["timing"]
    for split, count in config["splits"].items():
        used = min(timing["num_examples"], count)
        if used:
            jobs += [Job(TIMING, s, split, used, timing["trials"]) for s in first_seed.values()]
    return jobs
