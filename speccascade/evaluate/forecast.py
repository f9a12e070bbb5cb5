"""What a sweep would measure, and how long it would take."""

import dataclasses
from collections.abc import Mapping, Sequence

from speccascade import pairs
from speccascade.evaluate import cost, guess, probe, quality, teacher_forced, timing
from speccascade.evaluate.jobs import QUALITY, TEACHER_FORCED, TIMING, Job
from speccascade.evaluate.prepared import Sweep, kept, missing
from speccascade.sharding import hosts
from speccascade.workdir import provenance, results

DAY = 86_400  # seconds


def describe(sweep: Sweep, workdir: str, probed: bool = False) -> str:
    """Returns what `evaluation.evaluate` would do, and last a line of what it would cost.

    Args:
      sweep: what is to be measured.
      workdir: whose rows tell what is there, and how fast their methods are. Nothing in it changes.
      probed: whether other methods are probed, which compiles and decodes; else they are guessed
        within a second.
    """
    rows = hosts.from_first(lambda: [[row["key"], None] for row in results.read(workdir)])
    left = missing(sweep, dict(rows))
    undecoded = _undecoded(sweep, left, workdir)
    decoded, forced, timed = (
        [job for job in undecoded if job.kind == kind] for kind in (QUALITY, TEACHER_FORCED, TIMING)
    )
    settings = {job.setting for job in sweep.jobs if job.kind == QUALITY}
    splits = dict.fromkeys(job.split for job in sweep.jobs)
    section = sweep.config["evaluate"]
    room = sweep.engine.max_new_tokens
    return "\n".join(
        [
            f"{len(settings)} settings on {', '.join(splits)}: {len(sweep.jobs)} rows, "
            f"{len(sweep.jobs) - len(left)} of them there already",
            f"quality: {len(decoded)} rows, {cost.answers(decoded)} answers of at "
            f"most {room} tokens, {section['batch_size']} at a time, "
            f"{len(quality.groups(decoded))} compiled programs",
            f"teacher-forced: {len(forced)} rows, one pass of both models over the references of "
            f"{len(teacher_forced.groups(forced))} splits",
            f"timing: {len(timed)} rows, {cost.answers(timed)} answers at batch 1, "
            f"beside those of the expert in {len(timing.groups(timed, sweep.jobs))} groups",
            *(f"distributions: of the answers of {j.setting} on {j.split}" for j in sweep.recorded),
            *_cut(sweep.prompts),
            *_mesh(sweep.engine.pair),
            priced(sweep, undecoded, workdir, probed)[1],
        ]
    )


def _undecoded(sweep: Sweep, jobs: Sequence[Job], workdir: str) -> list[Job]:
    """Returns jobs as they ask for answers that are not kept yet."""

    def count() -> list[int]:
        asking = (kept(sweep, job, workdir) if job.kind == QUALITY else () for job in jobs)
        return [sum(tokens is not None for tokens in found) for found in asking]

    counts = hosts.from_first(count)
    return [
        dataclasses.replace(job, num_examples=job.num_examples - n) if n else job
        for job, n in zip(jobs, counts, strict=True)
    ]


def priced(
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
    estimated = cost.estimate(left, speeds, batch_size, sweep.jobs)
    if not probed:
        estimated = estimated._replace(compile_s=None)
    told = ["the rows so far"] * any(key in known for key in speeds)
    other = "a short probe" if probed else "the memory's speed (a guess; --probe measures)"
    told += [other] * any(key not in known for key in speeds)
    line = f"estimated cost: {estimated}, from {' and '.join(told)}"
    if estimated.known_s > DAY:
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
