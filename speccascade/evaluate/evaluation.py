"""A whole sweep: everything is checked, then what is missing in the workdir is measured."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections

from speccascade.evaluate import (
    cost,
    forecast,
    quality,
    recording,
    teacher_forced,
    timing,
    timing_parts,
)
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job
from speccascade.evaluate.prepared import Sweep, kept, missing, prepare
from speccascade.evaluate.progress import Progress
from speccascade.evaluate.recording import Recording
from speccascade.inference.engine import program, rule_kind
from speccascade.inference.setting import Setting, digest
from speccascade.inputs import paths
from speccascade.sharding import hosts
from speccascade.workdir import claim, distributions, results
from speccascade.workdir.answers import Answers
from speccascade.workdir.claim import claim_workdir

# What a workdir may be given more of, or other, later; rows that it has stay as good as they are.
GROWS = tuple(f"evaluate.{k}" for k in ("settings", "splits", "timing", "batch_size"))


class Outcome(NamedTuple):
    """What a run did.

    Attributes:
      measured: number of rows that it added.
      failed: a line for each job that failed.
      recorded: number of answers whose distributions it saved.
    """

    measured: int
    failed: list[str]
    recorded: int = 0


def evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    profile: bool = False,
    saved: Recording | None = None,
) -> Outcome:
    """Measures what is missing in `workdir`, appending to `results.jsonl` as settings finish.

    Args:
      config: `task`, `pair` and `evaluate`, see configs/quickstart.py; and where wanted `mesh`, the
        devices along each axis, `{"data": 1, "model": 8}`, see `sharding/config.py`.
      workdir: made if it is missing; gs:// works. One made from another config is refused.
      profile: whether to write a trace of one warm answer per program to `workdir`/profile.
      saved: which distributions to save beside the answers; None for none.

    Raises:
      UserError: bad input; nothing in the workdir is changed then.
    """
    workdir = paths.on_disk(workdir, "a profile") if profile else paths.plain(workdir)
    with hosts.agreed():
        sweep = prepare(config, saved=saved)
    return measure(sweep, workdir, profile)


def measure(sweep: Sweep, workdir: str, profile: bool = False) -> Outcome:
    """Does what `evaluate` does with a sweep that is prepared, or with some of its jobs."""
    workdir = paths.plain(workdir)
    hosts.check_alike(_fingerprint(sweep), "code, config or checkpoint")
    with contextlib.ExitStack() as held:
        store = timed = answers = told = None

        def start() -> list[int]:
            nonlocal store, timed, answers, told
            check = held.enter_context(claim.claim(workdir))
            for job in sweep.recorded:
                size = sweep.engine.pair.expert.vocab_size
                recording.check(workdir, sweep.origin.answers(job), sweep.top, size)
            claim_workdir(workdir, sweep.config, GROWS)
            store = results.Results(workdir, check)
            answers = Answers(workdir, check)
            told = Answers(workdir, check, distributions.FOLDER)
            timed = results.Results(workdir, check, timing_parts.FILE)
            left = set(missing(sweep, store.rows))
            return [i for i, job in enumerate(sweep.jobs) if job in left]

        left = [sweep.jobs[i] for i in hosts.from_first(start)]
        if profile:
            _profile(sweep, os.path.join(workdir, "profile"))
        speeds, line = forecast.priced(sweep, left, workdir)
        shown = bool(left) and hosts.is_first()
        if shown:
            print(line, file=sys.stderr, flush=True)
        failed = []
        batch_size = sweep.config["evaluate"]["batch_size"]
        with Progress(left, speeds, batch_size, shown, sweep.jobs) as progress:
            for job, outcome in _measure(sweep, left, progress, timed, answers):
                if isinstance(outcome, str):
                    failed.append(f"{job} failed: {outcome}")
                    progress.write(failed[-1])
                    continue
                with hosts.agreed():
                    if store is not None:
                        if job.kind == TIMING:
                            outcome |= timing.differing(outcome, kept(sweep, job, workdir))
                        store.append({**sweep.origin.row(job), **outcome})
        recorded = 0
        for job in sweep.recorded:
            name, asked_of = sweep.origin.answers(job), sweep.prompts[job.split]
            own = sweep.engine, asked_of, job.num_examples, sweep.top
            recorded += recording.run(*own, batch_size, workdir, name, told)
    return Outcome(len(left) - len(failed), failed, recorded)


def _fingerprint(sweep: Sweep) -> str:
    """Returns what all processes of a run must have alike."""
    return digest([sweep.origin.row(job)["key"] for job in sweep.jobs])


def _measure(
    sweep: Sweep,
    jobs: Sequence[Job],
    progress: Progress,
    timed: results.Results | None,
    answers: Answers | None,
) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Yields every job with its outcome; `timed` is the file of `timing_parts`."""
    engine, prompts = sweep.engine, sweep.prompts
    own = quality.Kept(answers, sweep.origin.answers)
    batch_size = sweep.config["evaluate"]["batch_size"]
    for group in cost.groups(jobs, sweep.jobs):
        progress.starts(group)
        if group[0].kind == QUALITY:
            told = progress.answered, progress.kept
            yield from quality.run(engine, sweep.task, prompts, group, batch_size, own, *told)
        elif group[0].kind == TEACHER_FORCED:
            yield from teacher_forced.run(engine, prompts, group, batch_size)
        else:
            parts = timing_parts.Parts(timed, group, lambda job: sweep.origin.row(job)["key"])
            yield from timing.run(
                engine, prompts, group, parts, progress.answered, progress.kept, progress.compiled
            )
            parts.clear()


def _profile(sweep: Sweep, directory: str) -> None:
    """Traces one answer of every compiled program at batch 1, compiled before."""
    split = next(iter(sweep.prompts))
    request = sweep.prompts[split].requests[0]
    by_program: dict[tuple, Setting] = {}
    for job in sweep.jobs:
        if job.kind != QUALITY:
            continue
        by_program.setdefault((program(job.setting), rule_kind(job.setting)), job.setting)
    settings = list(by_program.values())
    ready = [sweep.engine.prepare([s], [request], [s]) for s in settings]
    for decode in ready:
        jax.block_until_ready(decode())
    with jax.profiler.trace(directory):
        for setting, decode in zip(settings, ready, strict=True):
            with jax.profiler.TraceAnnotation(str(setting)):
                jax.block_until_ready(decode())
