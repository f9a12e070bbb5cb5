"""Rows of `results.jsonl` as the points that tables and plots are made of."""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job, plan
from speccascade.inference import metrics
from speccascade.inference.methods import EXPERT, ORACLE
from speccascade.inference.reading import expand, from_fields
from speccascade.inference.setting import Setting
from speccascade.inference.statistics import STATISTICS
from speccascade.report.caveats import caveats
from speccascade.tasks import aggregate

# What all rows of a report must share, the last where it is there; timings the machine besides.
SHARED = ("task", "pair", "tokenizer", "date")

# What makes an edition of a row, see `evaluate.origin`; the last two were there before the others.
_EDITION = ("numerics", "decoding", "scoring", "forcing", "timing", "code", "config")

MARK = "\N{DAGGER}"


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of one setting beside the expert's own, per example.

    Attributes:
      ms: float64 [n], milliseconds per answer.
      tokens: float64 [n], tokens per answer.
      expert_ms: float64 [n].
      expert_tokens: float64 [n].
      speedup: the expert's time per token over the setting's.
      interval: of `speedup`.
      first_ms: float64 [n], milliseconds until the first token is there; None where rows lack it.
    """

    ms: np.ndarray
    tokens: np.ndarray
    expert_ms: np.ndarray
    expert_tokens: np.ndarray
    speedup: float
    interval: tuple[float, float]
    first_ms: np.ndarray | None = None

    @property
    def time_to_first_token(self) -> float | None:
        """Milliseconds, the mean over examples."""
        return None if self.first_ms is None else float(self.first_ms.mean())

    @property
    def time_per_output_token(self) -> float | None:
        """Milliseconds per token behind the first, the mean over answers of several tokens."""
        several = self.tokens > 1
        if self.first_ms is None or not several.any():
            return None
        each = (self.ms - self.first_ms)[several] / (self.tokens[several] - 1)
        return float(each.mean())


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting on a split, its seeds pooled.

    Attributes:
      setting: with seed 0, whatever the seeds were.
      split: the examples' split.
      scores: float64 [n] or [n, k], each example's score or statistics, their mean over seeds.
      aggregate: what makes one figure of them, see `tasks.aggregate`.
      rates: means over seeds of the row's rates, of some by drafted position; None where a method
        has none.
      timing: None where it was not timed.
    """

    setting: Setting
    split: str
    scores: np.ndarray
    aggregate: str
    rates: Mapping[str, Any]
    timing: Timing | None

    @property
    def quality(self) -> float:
        """The score of all examples: their mean, or BLEU."""
        return float(aggregate.statistic(self.aggregate)(self.scores))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Bootstrap interval of `quality`."""
        return metrics.bootstrap(aggregate.statistic(self.aggregate), self.scores)

    @property
    def speedup(self) -> float | None:
        """The expert's time per token over the setting's."""
        return self.timing.speedup if self.timing else None


@dataclasses.dataclass(frozen=True)
class Forced:
    """What a rule, or the oracle, does on the reference answers of a split.

    Attributes:
      setting: without what drafting needs; its method is "oracle" for the oracle.
      split: the examples' split.
      deferral: [k], deferral rates; one for a rule, NaN where it has none, a curve for the oracle.
      quality: [k], mean probability of the reference's token under pi.
      interval: [k, 2], of `quality`.
      rejection: the mean of TV(pi, q); None for the oracle.
    """

    setting: Setting
    split: str
    deferral: np.ndarray
    quality: np.ndarray
    interval: np.ndarray
    rejection: float | None


@dataclasses.dataclass(frozen=True)
class Points:
    """All points of a workdir.

    Attributes:
      by_setting: by (setting with seed 0, split), in the order of the config's grid.
      shared: what the rows have in common, see `SHARED`.
      notes: what a reader must know: rows that are missing or were left out.
      forced: what rules do on reference answers; none of splits without any.
      marked: settings with a row of another edition than the newest.
    """

    by_setting: dict[tuple[Setting, str], Point]
    shared: dict[str, str]
    notes: list[str]
    forced: tuple[Forced, ...] = ()
    marked: frozenset[Setting] = frozenset()

    def of(self, setting: Setting, split: str) -> Point | None:
        """Returns the point of a setting on a split, None where it is missing."""
        return self.by_setting.get((setting, split))

    def on(self, split: str) -> list[Point]:
        """Returns the points of a split, in the order of the grid."""
        return [point for (_, s), point in self.by_setting.items() if s == split]

    def settings(self) -> list[Setting]:
        """Returns the settings, seeds pooled."""
        return list(dict.fromkeys(setting for setting, _ in self.by_setting))

    def temperatures(self) -> list[float]:
        """Returns the temperatures, ascending."""
        return sorted({setting.temperature for setting in self.settings()})

    def expert(self, temperature: float, split: str) -> Point | None:
        """Returns the expert's own decoding, what everything is compared with."""
        return self.of(Setting(EXPERT, temperature=temperature), split)

    def mark(self, setting: Setting, name: str) -> str:
        """Returns a setting's name for a table, marked where it is of another edition."""
        return f"{name} {MARK}" if setting in self.marked else name

    def compute(self, point: Point) -> float | None:
        """Returns a point's multiply-adds per token over those of the expert's own decoding."""
        expert = self.expert(point.setting.temperature, point.split)
        own = point.rates["multiply_adds_per_token"]
        theirs = expert and expert.rates["multiply_adds_per_token"]
        return None if own is None or not theirs else own / theirs

    def oracle(self, temperature: float, split: str) -> Forced | None:
        """Returns the oracle's curve."""
        wanted = Setting(ORACLE, temperature=temperature), split
        return next((f for f in self.forced if (f.setting, f.split) == wanted), None)


def unseeded(setting: Setting) -> Setting:
    """Returns the setting without its seed."""
    return dataclasses.replace(setting, seed=0)


def collect(
    rows: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
    only_newest: bool = False,
) -> Points:
    """Makes points of the rows that the config's grid asks for.

    Rows of one task, pair and tokenizer are taken, timings of one machine: those of the newest row.
    Of several rows of one job the newest edition counts, and where that was not measured, another
    one, which is marked. What is left out, marked or missing becomes a note.

    Args:
      rows: of `results.jsonl`, oldest first.
      config: the workdir's config.
      command: what measures the missing rows.
      only_newest: whether rows of another edition are left out.

    Raises:
      UserError: there are no rows.
    """
    if not rows:
        raise UserError(f"there are no results yet; run {command}")
    shared = {name: rows[-1][name] for name in SHARED if name in rows[-1]}
    alike = [row for row in rows if all(row.get(k) == value for k, value in shared.items())]
    asked = {_question(row): row.get("examples") for row in alike}
    alike = [row for row in alike if row.get("examples") in (None, asked[_question(row)])]
    newest = {row["kind"]: row for row in alike}
    if TIMING in newest:
        shared["machine"] = newest[TIMING]["machine"]
    alike = [row for row in alike if row.get("machine") in (None, shared.get("machine"))]
    shared |= {name: newest[QUALITY][name] for name in _EDITION if name in newest.get(QUALITY, ())}

    grid = expand(config["evaluate"]["settings"], pairs.named_drafters(config.get("pair", "")))
    jobs = plan(grid, config["evaluate"])
    found: dict[Job, Mapping[str, Any]] = {}
    for row in sorted(alike, key=lambda row: _is_edition(row, newest[row["kind"]])):
        found[_job(row)] = row  # the newest of the newest edition last
    found = {job: found[job] for job in jobs if job in found}
    others = {job for job, row in found.items() if not _is_edition(row, newest[row["kind"]])}
    if only_newest:
        found = {job: row for job, row in found.items() if job not in others}

    notes = []
    if left := len(rows) - len(alike):
        notes.append(
            f"{left} older rows of another checkpoint, of other examples or of another machine are "
            "left out"
        )
    if others and only_newest:
        notes.append(f"{len(others)} rows of another edition are left out")
    elif others:
        notes.append(
            f"{MARK} {len(others)} rows were measured by another edition of the code or of JAX, or "
            f"scored otherwise; to measure them anew run {command}"
        )
    if absent := len(jobs) - len(found):
        notes.append(f"{absent} of {len(jobs)} rows are missing; to add them run {command}")

    notes += caveats(list(found.values()))

    def of(kind):
        return [row for job, row in found.items() if job.kind == kind]

    marked = frozenset() if only_newest else frozenset(unseeded(job.setting) for job in others)
    forced = tuple(_forced(row) for row in of(TEACHER_FORCED) if row["positions"])
    return Points(_pool(grid, of(QUALITY), of(TIMING)), shared, notes, forced, marked)


def _question(row: Mapping[str, Any]) -> tuple:
    """Returns what rows have alike that are about the same examples, if their prompts are."""
    return row["kind"], row["split"], row["num_examples"]


def _job(row: Mapping[str, Any]) -> Job:
    fields = (row[name] for name in ("kind", "split", "num_examples", "trials"))
    kind, split, num_examples, trials = fields
    return Job(kind, from_fields(row), split, num_examples, trials)


def _is_edition(row: Mapping[str, Any], newest: Mapping[str, Any]) -> bool:
    """Returns whether a row is of the same edition as the newest one of its kind."""
    return all(row.get(name) == newest.get(name) for name in _EDITION)


def _pool(grid, quality, timed) -> dict[tuple[Setting, str], Point]:
    by_setting = defaultdict(list)
    for row in quality:
        by_setting[unseeded(from_fields(row)), row["split"]].append(row)
    timings = {(unseeded(from_fields(r)), r["split"]): _timing(r) for r in timed}
    rates = (*STATISTICS, "multiply_adds_per_token")
    order = {unseeded(setting): i for i, setting in enumerate(grid)}
    return {
        key: Point(
            setting=key[0],
            split=key[1],
            scores=np.mean([row["scores"] for row in by_setting[key]], axis=0),
            # Rows had only means before they said so, and did not count what they computed.
            aggregate=by_setting[key][0].get("aggregate", "mean"),
            rates={name: _mean([row.get(name) for row in by_setting[key]]) for name in rates},
            timing=timings.get(key),
        )
        for key in sorted(by_setting, key=lambda key: order[key[0]])
    }


def _timing(row: Mapping[str, Any]) -> Timing:
    def column(name: str) -> np.ndarray:
        return np.asarray(row[name], np.float64)

    low, high = row["speedup_ci"]
    return Timing(
        ms=column("ms"),
        tokens=column("generated"),
        expert_ms=column("expert_ms"),
        expert_tokens=column("expert_generated"),
        speedup=row["speedup"],
        interval=(low, high),
        first_ms=None if row.get("first_ms") is None else column("first_ms"),
    )


def _forced(row: Mapping[str, Any]) -> Forced:
    def column(name):
        value = row[name]
        return np.atleast_1d(np.asarray(np.nan if value is None else value, np.float64))

    return Forced(
        setting=from_fields(row),
        split=row["split"],
        deferral=column("deferral_rate"),
        quality=column("quality"),
        interval=np.asarray(row["quality_ci"], np.float64).reshape(-1, 2),
        rejection=row.get("rejection_rate"),
    )


def _mean(values: Sequence[Any]) -> float | list[float] | None:
    if None in values:
        return None
    if isinstance(values[0], list):
        return [statistics.fmean(column) for column in zip(*values, strict=True)]
    return statistics.fmean(values)
