"""A whole sweep: everything is checked, then what is missing in the workdir is measured."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections

from speccascade import pairs, sharding, tasks
from speccascade.errors import UserError
from speccascade.evaluate import (
    cost,
    guess,
    origin,
    probe,
    quality,
    recording,
    sections,
    teacher_forced,
    timing,
    timing_parts,
)
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job, plan
from speccascade.evaluate.origin import Origin
from speccascade.evaluate.progress import Progress
from speccascade.evaluate.recording import Recording
from speccascade.inference.engine import Engine, program, rule_kind
from speccascade.inference.setting import Setting, digest
from speccascade.inputs import paths
from speccascade.models import memory
from speccascade.sharding import hosts
from speccascade.workdir import claim, distributions, provenance, results
from speccascade.workdir.answers import Answers
from speccascade.workdir.answers import read as kept_answers
from speccascade.workdir.claim import claim_workdir

# What a workdir may be given more of, or other, later; rows that it has stay as good as they are.
GROWS = tuple(f"evaluate.{k}" for k in ("settings", "splits", "timing", "batch_size"))
DAY = 86_400  # seconds


class Sweep(NamedTuple):
    """A checked sweep.

    Attributes:
      config: the sections that it depends on, JSON-ready.
      engine: the pair.
      task: scores the answers.
      prompts: by split.
      jobs: all of it.
      origin: what its rows depend on.
      recorded: the jobs whose answers' distributions are saved.
      top: how many tokens of each; None for all.
    """

    config: dict[str, Any]
    engine: Engine
    task: tasks.Task
    prompts: dict[str, quality.Prompts]
    jobs: list[Job]
    origin: Origin
    recorded: Sequence[Job] = ()
    top: int | None = None


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


def prepare(
    config: ml_collections.ConfigDict, weights: bool = True, saved: Recording | None = None
) -> Sweep:
    """Checks everything that can be known before long work starts, and loads it.

    Args:
      config: see `evaluate`.
      weights: whether anything is to be decoded; else the models' weights may be left unread.
      saved: see `evaluate`.

    Raises:
      UserError: a setting, the task, the pair or a prompt is not as it must be.
    """
    plain, settings = sections.read(config)
    asked = plain["evaluate"]
    layout = sharding.from_config(plain.get("mesh"))
    task = tasks.make(config.task, pairs.chats(plain["pair"]))
    examples = {}
    for split, count in asked["splits"].items():
        examples[split] = task.examples(split, count)
        if len(examples[split]) < count:
            change = (
                f"lower evaluate.splits.{split} (now {count}) to that"
                if examples[split]
                else f"give the task some, or leave evaluate.splits.{split} out"
            )
            raise UserError(f"split {split} has {len(examples[split])} examples; {change}")
    pair = pairs.load(plain["pair"], layout, weights)
    engine, prompts = _tokenize(pair, task, examples, asked["max_new_tokens"])
    for setting in settings:
        engine.check(setting)
        sections.check_heads(setting, config.task.name, asked["splits"])
    if layout is None:
        rows, slots = asked["batch_size"], engine.prompt_slots + engine.max_new_tokens
        needed = memory.of_pass(pair.models["expert"], rows, 1, slots)
        memory.check(f"evaluate.batch_size={rows}", needed, "lower it")
    jobs = plan(settings, asked)
    return Sweep(
        plain,
        engine,
        task,
        prompts,
        jobs,
        origin.of(plain, task, engine, examples),
        saved.jobs(jobs, engine) if saved else (),
        saved.top if saved else None,
    )


def _tokenize(
    pair: pairs.Pair, task: tasks.Task, examples: Mapping[str, Sequence], max_new_tokens: int
) -> tuple[Engine, dict[str, quality.Prompts]]:
    fitted = {
        split: pair.fit_prompts([e.prompt for e in found], max_new_tokens)
        for split, found in examples.items()
    }
    every = [prompt.ids for found in fitted.values() for prompt in found]
    engine = Engine.build(pair, every, max_new_tokens, task.stop_strings)
    prompts = {}
    for split, found in examples.items():
        requests = [
            engine.request(p.ids, example.id, f"the prompt of {split} example {example.id}", p.cut)
            for p, example in zip(fitted[split], found, strict=True)
        ]
        answers = pair.encode_answers([e.answer for e in found])
        prompts[split] = quality.Prompts(found, requests, answers)
    return engine, prompts


def measured(sweep: Sweep, workdir: str) -> list[results.Row]:
    """Returns the rows of the sweep's jobs that are there, oldest first."""
    keys = {sweep.origin.row(job)["key"] for job in sweep.jobs}
    return [row for row in results.read(workdir) if row["key"] in keys]


def missing(sweep: Sweep, rows: Mapping[str, Any]) -> list[Job]:
    """Returns the jobs that have no row yet."""
    return [job for job in sweep.jobs if sweep.origin.row(job)["key"] not in rows]


def describe(sweep: Sweep, workdir: str) -> str:
    """Returns what `evaluate` would do, without doing it."""
    left = missing(sweep, {row["key"]: row for row in results.read(workdir)})
    by_batch, forced, timed = (
        [job for job in left if job.kind == kind] for kind in (QUALITY, TEACHER_FORCED, TIMING)
    )
    undecoded = _undecoded(sweep, by_batch, workdir)
    settings = {job.setting for job in sweep.jobs if job.kind == QUALITY}
    splits = dict.fromkeys(job.split for job in sweep.jobs)
    section = sweep.config["evaluate"]
    room = sweep.engine.max_new_tokens
    return "\n".join(
        [
            f"{len(settings)} settings on {', '.join(splits)}: {len(sweep.jobs)} rows, "
            f"{len(sweep.jobs) - len(left)} of them there already",
            f"quality: {len(by_batch)} rows, {cost.answers(undecoded)} answers of at "
            f"most {room} tokens, {section['batch_size']} at a time, "
            f"{len(quality.groups(by_batch))} compiled programs",
            f"teacher-forced: {len(forced)} rows, one pass of both models over the references of "
            f"{len(teacher_forced.groups(forced))} splits",
            f"timing: {len(timed)} rows, {cost.answers(timed)} answers at batch 1, "
            f"beside those of the expert in {len(timing.groups(timed, sweep.jobs))} groups",
            *(f"distributions: of the answers of {j.setting} on {j.split}" for j in sweep.recorded),
            *_cut(sweep.prompts),
            *_mesh(sweep.engine.pair),
        ]
    )


def estimate(sweep: Sweep, workdir: str, probed: bool = False) -> str:
    """Returns a line that says what `evaluate` would cost.

    Args:
      sweep: what is to be measured.
      workdir: whose rows tell how fast their methods are.
      probed: whether other methods are probed, which compiles and decodes; else they are guessed
        within a second. Nothing is changed in the workdir.
    """
    rows = hosts.from_first(lambda: [[row["key"], None] for row in results.read(workdir)])
    left = _undecoded(sweep, missing(sweep, dict(rows)), workdir)
    return _priced(sweep, left, workdir, probed)[1]


def _undecoded(sweep: Sweep, jobs: Sequence[Job], workdir: str) -> list[Job]:
    """Returns jobs as they ask for answers that are not kept yet."""

    def count() -> list[int]:
        asking = (_kept(sweep, job, workdir) if job.kind == QUALITY else () for job in jobs)
        return [sum(tokens is not None for tokens in found) for found in asking]

    kept = hosts.from_first(count)
    return [
        dataclasses.replace(job, num_examples=job.num_examples - n) if n else job
        for job, n in zip(jobs, kept, strict=True)
    ]


def _priced(
    sweep: Sweep, left: Sequence[Job], workdir: str, probed: bool = True
) -> tuple[cost.Speeds, str]:
    """Returns the speeds of what is left, by rows of the workdir or otherwise, and its cost."""
    if not cost.decoded(left):
        return {}, "nothing is left to decode"
    batch_size = sweep.config["evaluate"]["batch_size"]
    here, pair = provenance.machine(), sweep.origin.common["pair"]

    def read() -> list:
        rows = [row for row in results.read(workdir) if row["pair"] == pair]
        rows = [row for row in rows if row.get("machine", here) == here]
        return [[*key, seconds] for key, seconds in cost.from_rows(rows, batch_size).items()]

    known = {(kind, method): seconds for kind, method, seconds in hosts.from_first(read)}
    if probed:
        speeds = probe.measure(sweep.engine, sweep.prompts, left, batch_size, known)
    else:
        guessed = guess.speeds(sweep.engine, left)
        speeds = {
            key: cost.Speed(known[key], 0.0) if key in known else guessed[key] for key in guessed
        }
    priced = cost.estimate(left, speeds, batch_size, sweep.jobs)
    if not probed:
        priced = priced._replace(compile_s=None)
    told = ["the rows so far"] * any(key in known for key in speeds)
    other = "a short probe" if probed else "the memory's speed (a guess; --probe measures)"
    told += [other] * any(key not in known for key in speeds)
    line = f"estimated cost: {priced}, from {' and '.join(told)}"
    if priced.known_s > DAY:
        line += "; for less, lower evaluate.splits, evaluate.timing or evaluate.settings"
    return speeds, line


def _cut(prompts: Mapping[str, quality.Prompts]) -> list[str]:
    """Returns a line that says how many prompts do not fit whole, none where all do."""
    counts = {split: (p.cut(len(p.requests)), len(p.requests)) for split, p in prompts.items()}
    if not any(cut for cut, _ in counts.values()):
        return []
    told = (f"{cut} of {count} of {split}" for split, (cut, count) in counts.items())
    return [f"prompts cut to the pair's lengths: {', '.join(told)}"]


def _mesh(pair: pairs.Pair) -> list[str]:
    """Returns lines that say how a pair lies on its mesh, none for one device."""
    if pair.layout is None:
        return []
    shape = ", ".join(f"{axis}={size}" for axis, size in pair.layout.mesh.shape.items())
    unequal = [
        f"{role}: {line}"
        for role in pair.roles
        for line in pair.layout.of(role, pair.models[role]).unequal(pair.models[role])
    ]
    return [f"mesh: {shape}", *unequal]


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
        speeds, line = _priced(sweep, left, workdir)
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
                            outcome |= timing.differing(outcome, _kept(sweep, job, workdir))
                        store.append({**sweep.origin.row(job), **outcome})
        recorded = 0
        for job in sweep.recorded:
            name, asked_of = sweep.origin.answers(job), sweep.prompts[job.split]
            own = sweep.engine, asked_of, job.num_examples, sweep.top
            recorded += recording.run(*own, batch_size, workdir, name, told)
    return Outcome(len(left) - len(failed), failed, recorded)


def _kept(sweep: Sweep, job: Job, workdir: str) -> list[list[int] | None]:
    """Returns the tokens that quality's decoding gave the examples that a job times."""
    found = kept_answers(workdir, sweep.origin.answers(job))
    examples = sweep.prompts[job.split].examples[: job.num_examples]
    answers = quality.of_examples(found, examples)
    return [None if answer is None else answer["tokens"] for answer in answers]


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
    kept = quality.Kept(answers, sweep.origin.answers)
    batch_size = sweep.config["evaluate"]["batch_size"]
    for group in cost.groups(jobs, sweep.jobs):
        progress.starts(group)
        if group[0].kind == QUALITY:
            told = progress.answered, progress.kept
            yield from quality.run(engine, sweep.task, prompts, group, batch_size, kept, *told)
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
