"""What a sweep costs: from a few measured speeds to minutes, before anything long starts.

What scores references is left out: that is one pass over each, and takes next to nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from speccascade.evaluate import quality, teacher_forced, timing
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job
from speccascade.inference.engine import program, rule_kind
from speccascade.inference.methods import EXPERT
from speccascade.inference.setting import Setting


class Speed(NamedTuple):
    """How fast one method is.

    Attributes:
      batch_s: seconds that a batch's whole answers take; where timed, one answer.
      compile_s: seconds that its program takes to compile.
    """

    batch_s: float
    compile_s: float


# By kind of job and name of a method.
Speeds = Mapping[tuple[str, str], Speed]


class Cost(NamedTuple):
    """Seconds that the parts of a sweep take; `compile_s` is None where nobody knows it."""

    quality_s: float
    timing_s: float
    compile_s: float | None

    @property
    def known_s(self) -> float:
        """Seconds of all parts that are known."""
        return self.quality_s + self.timing_s + (self.compile_s or 0.0)

    def __str__(self) -> str:
        whole = self.known_s / 60
        hours = f" = {whole / 60:,.1f} hours" if whole >= 120 else ""
        parts = ("not counted" if s is None else f"{s / 60:,.1f}" for s in self)
        text = "about {:,.1f} minutes{} (quality {}, timing {}, compiling {})"
        return text.format(whole, hours, *parts)


def methods(setting: Setting) -> tuple[str, ...]:
    """Returns the names of the methods whose seconds a setting's are at most."""
    return tuple(method.name for method in setting.method.costs())


def needed(jobs: Iterable[Job]) -> list[tuple[str, str]]:
    """Returns the kinds and methods whose speeds the functions below need for `jobs`."""
    found: dict[tuple[str, str], None] = {}
    for job in decoded(jobs):
        beside = (EXPERT.name,) if job.kind == TIMING else ()
        found.update(dict.fromkeys((job.kind, m) for m in (*methods(job.setting), *beside)))
    return list(found)


def decoded(jobs: Iterable[Job]) -> list[Job]:
    """Returns the jobs that decode answers."""
    return [job for job in jobs if job.kind != TEACHER_FORCED]


def groups(jobs: Sequence[Job], whole: Sequence[Job] | None = None) -> list[list[Job]]:
    """Returns the groups in which jobs are measured, in that order: quality first, timing last.

    Args:
      jobs: what is left of a sweep.
      whole: all of it, see `timing.groups`.
    """
    grouped: dict[str, Callable[[list[Job]], list[list[Job]]]] = {
        QUALITY: quality.groups,
        TEACHER_FORCED: teacher_forced.groups,
        TIMING: partial(timing.groups, whole=whole),
    }
    return [
        group
        for kind, by_kind in grouped.items()
        for group in by_kind([job for job in jobs if job.kind == kind])
    ]


def answers(group: Iterable[Job]) -> int:
    """Returns how many answers jobs ask for, the expert's beside timed ones not counted."""
    return sum(job.num_examples * (job.trials or 1) for job in group)


def decoding_seconds(group: Sequence[Job], speeds: Speeds, batch_size: int) -> float:
    """Returns what a group of `groups` takes but for compiling; `batch_size` is quality's."""
    first = group[0]

    def batch_s(setting: Setting) -> float:
        return sum(speeds[first.kind, method].batch_s for method in methods(setting))

    if first.kind == QUALITY:
        return math.ceil(answers(group) / batch_size) * batch_s(first.setting)
    in_turn = speeds[TIMING, EXPERT.name].batch_s + sum(batch_s(job.setting) for job in group)
    return answers([first]) * in_turn


def program_key(kind: str, setting: Setting) -> tuple:
    """Returns what settings must share to be compiled as one program in jobs of a kind."""
    return kind, program(setting), None if kind == QUALITY else rule_kind(setting)


def compile_seconds(kind: str, setting: Setting, speeds: Speeds) -> float:
    """Returns what a setting's program takes to compile."""
    return sum(speeds[kind, method].compile_s for method in methods(setting))


def estimate(
    jobs: Sequence[Job], speeds: Speeds, batch_size: int, whole: Sequence[Job] | None = None
) -> Cost:
    """Returns what jobs cost.

    Args:
      jobs: what is left of a sweep.
      speeds: of all that is `needed`.
      batch_size: rows of a quality batch.
      whole: all of the sweep, see `timing.groups`.
    """
    seconds = {QUALITY: 0.0, TIMING: 0.0}
    compiled = {}
    for group in groups(decoded(jobs), whole):
        kind = group[0].kind
        seconds[kind] += decoding_seconds(group, speeds, batch_size)
        settings = [job.setting for job in group]
        for setting in settings + ([Setting(EXPERT)] if kind == TIMING else []):
            compiled[program_key(kind, setting)] = compile_seconds(kind, setting, speeds)
    return Cost(seconds[QUALITY], seconds[TIMING], sum(compiled.values()))


def from_rows(rows: Iterable[Mapping[str, Any]], batch_size: int) -> dict[tuple[str, str], float]:
    """Returns `batch_s` as the rows of a workdir tell it, by kind and method.

    Of quality, the median over rows: the first row of a program has its compiling in it.

    Args:
      rows: of `results.jsonl`; timed ones of this machine.
      batch_size: rows of a quality batch.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        key = row["kind"], row["method"]
        if row["kind"] == QUALITY:
            found.setdefault(key, []).append(batch_size * row["seconds"] / row["num_examples"])
        elif row["kind"] == TIMING:
            found.setdefault(key, []).append(np.mean(row["ms"]) / 1000)
            found.setdefault((TIMING, EXPERT.name), []).append(np.mean(row["expert_ms"]) / 1000)
    return {key: float(np.median(values)) for key, values in found.items()}
