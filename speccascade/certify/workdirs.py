"""Settings of workdirs of `scripts/evaluate.py`, whose rows hold scores and timings."""

import dataclasses
import os
from collections.abc import Sequence

import ml_collections
import numpy as np

from speccascade import pairs, tasks
from speccascade.certify.measured import Measured, Times
from speccascade.certify.scoring import Scoring, by_task
from speccascade.errors import UserError
from speccascade.evaluate.jobs import QUALITY
from speccascade.inference.methods import EXPERT
from speccascade.inference.reading import find, from_fields
from speccascade.inference.setting import Setting
from speccascade.report.points import Points, collect, unseeded
from speccascade.workdir import results
from speccascade.workdir.files import read_json


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The settings that were measured on one split.

    Attributes:
      path: as it was given.
      points: all of them.
      seeds: by setting, how many are pooled.
      scoring: that of the workdir's task, on the same examples.
      ids: of the examples.
      split: theirs.
    """

    path: str
    points: Points
    seeds: dict[Setting, int]
    scoring: Scoring
    ids: tuple[str, ...]
    split: str

    def settings(self) -> list[Setting]:
        """Returns the settings of the split, seeds pooled."""
        return list(self.seeds)

    def before(self, words: str) -> Setting:
        """Returns the setting that words tell; without words the expert's own decoding."""
        if words:
            return find(words, self.settings())
        experts = [s for s in self.settings() if s.method == EXPERT]
        if len(experts) == 1:
            return experts[0]
        shown = "; ".join(map(str, experts)) or "none"
        raise UserError(
            f"{self.path} has not one setting of the expert alone ({shown}); name one behind a #, "
            f"--before='{self.path}#SETTING'"
        )

    def afters(self, words: str, before: Setting | None) -> list[Setting]:
        """Returns the setting that words tell; without words all others of a temperature."""
        if words:
            return [find(words, self.settings())]
        others = [
            s
            for s in self.settings()
            if s != before and (before is None or s.temperature == before.temperature)
        ]
        if not others:
            raise UserError(f"{self.path} has no other setting on {self.split}")
        return others

    def measured(self, setting: Setting) -> Measured:
        """Returns a setting by prompt."""
        point = self.points.of(setting, self.split)
        timing, own, beside = point.timing, None, None
        if timing is not None:
            own = self._times(timing.ms, timing.tokens)
            expert = Setting(EXPERT, temperature=setting.temperature)
            beside = self._source(expert), self._times(timing.expert_ms, timing.expert_tokens)
        return Measured(
            name=str(setting),
            source=self._source(setting),
            ids=self.ids,
            scores=point.scores,
            samples=(self.seeds[setting],) * 2,
            times=own,
            acceptance=point.rates["tokens_per_expert_call"],
            beside=beside,
        )

    def _source(self, setting: Setting) -> str:
        return f"{self.path}#{setting}"

    def _times(self, ms: np.ndarray, tokens: np.ndarray) -> Times:
        """Returns the times of the first examples, which alone were timed."""
        none = np.full(len(self.ids) - len(ms), np.nan)
        return Times(np.concatenate([ms / 1000, none]), np.concatenate([tokens, none]))


def read(path: str, split: str) -> Workdir:
    """Reads the rows of a workdir.

    Raises:
      UserError: it has none on the split, or they are of different examples.
    """
    config = read_json(os.path.join(path, "config.json"))
    if "evaluate" not in config:
        raise UserError(f"{path} belongs to a training; give the workdir of scripts/evaluate.py")
    rows = results.read(path)
    points = collect(rows, config, f"python scripts/evaluate.py --workdir={path}")
    there = [s for s in points.settings() if points.of(s, split) is not None]
    if not there:
        raise UserError(f"{path} has no rows of split {split}; run scripts/evaluate.py")
    task = tasks.make(ml_collections.ConfigDict(config["task"]), pairs.chats(config["pair"]))
    count = len(points.of(there[0], split).scores)
    examples = task.examples(split, count)
    if len(examples) < count:
        raise UserError(f"{path} has {count} scores a setting and its task now fewer examples")
    seeds = {s: _seeds(rows, s, split) for s in there}
    return Workdir(
        path,
        points,
        seeds,
        by_task(task, examples),
        tuple(str(example.id) for example in examples),
        split,
    )


def _seeds(rows: Sequence[results.Row], setting: Setting, split: str) -> int:
    own = {from_fields(r) for r in rows if r["kind"] == QUALITY and r["split"] == split}
    return sum(unseeded(one) == setting for one in own)
