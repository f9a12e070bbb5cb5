"""Behind `scripts/tune.py`: measures the validation split, chooses, measures the choice on test."""

from collections.abc import Sequence
from typing import NamedTuple

import ml_collections

from speccascade.errors import UserError
from speccascade.evaluate import evaluation, forecast, prepared
from speccascade.evaluate.jobs import TEACHER_FORCED
from speccascade.inference.methods import EXPERT
from speccascade.inference.reading import from_fields
from speccascade.inference.setting import Setting
from speccascade.inputs import paths, values
from speccascade.report.choice import TEST, VALIDATION
from speccascade.report.points import collect, unseeded
from speccascade.sharding import hosts
from speccascade.tuning import batches, summary
from speccascade.tuning.choice import Decision, MaxQualityLoss, MinSpeedUp, Promise, decide


class Tuned(NamedTuple):
    """What a run did.

    Attributes:
      text: for people, Markdown.
      failed: a line for each job that failed.
    """

    text: str
    failed: list[str]


def tune(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    max_quality_loss: float | None = None,
    min_speedup: float | None = None,
    confidence: float = 0.95,
    temperature: float | None = None,
    batch_sizes: Sequence[int] = (),
) -> Tuned:
    """Chooses a setting of the config's sweep; writes tune.json and tune.md to `workdir`.

    Args:
      config: of `evaluate`, with splits validation and test, and timings.
      workdir: of `evaluate`, whose rows serve both; started again, only what is missing is
        measured. Test rows are measured of the expert, of lossless speculative decoding and of the
        chosen setting alone.
      max_quality_loss: the promise of quality, in the task's score units; or else
      min_speedup: the promise of speed.
      confidence: of the promise, between 0 and 1.
      temperature: of the settings that may be chosen; may be None where the sweep has but one.
      batch_sizes: for which the fastest is told too, of the settings that keep a promise of
        quality; see `batches`.

    Raises:
      UserError: bad input. Nothing is decoded then.
    """
    workdir = paths.plain(workdir)
    if not 0 < confidence < 1:
        raise UserError(f"--confidence={confidence:g} must be between 0 and 1")
    if (max_quality_loss is None) == (min_speedup is None):
        raise UserError("give one of --max_quality_loss and --min_speedup")
    with hosts.agreed():
        sweep = prepared.prepare(config)
        if min_speedup is not None:
            promise: Promise = MinSpeedUp(min_speedup)
        else:
            promise = MaxQualityLoss(max_quality_loss, sweep.task.full_score)
        temperature = _temperature(sweep, temperature)
        _check(sweep, temperature)
        batch_sizes = _batch_sizes(sweep, promise, batch_sizes)
        decoded = {job.setting for job in sweep.jobs if job.kind != TEACHER_FORCED}
        batches.check(sweep.engine, decoded, batch_sizes)
    on_validation = _part(sweep, VALIDATION, temperature)
    measured = evaluation.measure(on_validation, workdir)
    written = {}

    def choose() -> list:
        decision = _decide(on_validation, workdir, promise, confidence)
        written["decision"] = decision
        wanted = {decision.chosen, decision.lossless}
        return [setting.fields() for setting in sorted(wanted, key=str)]

    wanted = [from_fields(fields) for fields in hosts.from_first(choose)]
    expert = Setting(EXPERT, temperature=temperature)
    on_test = _part(sweep, TEST, temperature, {expert, *wanted})
    held_out = evaluation.measure(on_test, workdir)
    failed = measured.failed + held_out.failed
    in_batches = _fastest(sweep, written["decision"], batch_sizes) if batch_sizes else {}

    def write() -> str:
        points = collect(prepared.measured(on_test, workdir), sweep.config, "")
        text, record = summary.write(written["decision"], points, failed, in_batches)
        summary.save(workdir, text, record)
        return text

    return Tuned(hosts.from_first(write), failed)


def describe(config: ml_collections.ConfigDict, workdir: str, temperature: float | None) -> str:
    """Returns what `tune` would measure on the validation split, and what that would cost."""
    sweep = prepared.prepare(config, weights=False)
    temperature = _temperature(sweep, temperature)
    _check(sweep, temperature)
    part = _part(sweep, VALIDATION, temperature)
    then = "then, on test, the expert, lossless decoding and the chosen setting"
    return f"{forecast.describe(part, workdir)}\n{then}"


def _temperature(sweep: prepared.Sweep, asked: float | None) -> float:
    known = sorted({job.setting.temperature for job in sweep.jobs})
    if asked is None and len(known) == 1:
        return known[0]
    if asked not in known:
        listed = ", ".join(f"{t:g}" for t in known)
        raise UserError(f"give --temperature one of the sweep's: {listed}")
    return asked


def _check(sweep: prepared.Sweep, temperature: float) -> None:
    section = sweep.config["evaluate"]
    for split in (VALIDATION, TEST):
        if split not in section["splits"]:
            raise UserError(f"evaluate.splits lacks {split}; give it a number of examples")
    timed = min(section["timing"]["num_examples"], *section["splits"].values())
    if timed < 2:
        raise UserError(
            "speeds are compared by evaluate.timing.num_examples examples; give it at least 2"
        )
    expert = Setting(EXPERT, temperature=temperature)
    if expert not in {unseeded(job.setting) for job in sweep.jobs}:
        raise UserError(
            f"the sweep lacks the expert's own decoding at temperature {temperature:g}; add "
            f'{{"method": "{EXPERT}", "temperature": {temperature:g}}}'
        )


def _batch_sizes(
    sweep: prepared.Sweep, promise: Promise, given: Sequence[int]
) -> list[int]:
    """Returns checked batch sizes."""
    if not given:
        return []
    if not isinstance(promise, MaxQualityLoss):
        raise UserError("--batch_sizes needs --max_quality_loss: a speed is promised of batch 1")
    if sweep.engine.pair.layout is not None:
        raise UserError("--batch_sizes times passes on one device; leave config.mesh out")
    numbers = [int(each) if str(each).isdecimal() else each for each in given]  # a flag's are text
    return values.wholes("--batch_sizes", numbers, 1)


def _fastest(
    sweep: prepared.Sweep, decision: Decision, batch_sizes: Sequence[int]
) -> dict[int, batches.Fastest]:
    """Returns the fastest setting that keeps the promise, by batch size."""
    tokens = {s: each for s, each in decision.kept.items() if batches.passes(s) is not None}
    wanted = sorted({which for setting in tokens for which in batches.passes(setting)})
    trials = sweep.config["evaluate"]["timing"]["trials"]
    timed = batches.measured(sweep.engine, wanted, batch_sizes, trials)
    return {batch: batches.fastest(tokens, seconds) for batch, seconds in timed}


def _part(
    sweep: prepared.Sweep, split: str, temperature: float, wanted: set[Setting] | None = None
) -> prepared.Sweep:
    """Returns the sweep's jobs of a split and a temperature, of `wanted` settings or of all."""
    jobs = [
        job
        for job in sweep.jobs
        if job.split == split
        and job.kind != TEACHER_FORCED  # no promise rests on it
        and job.setting.temperature == temperature
        and (wanted is None or unseeded(job.setting) in wanted)
    ]
    return sweep._replace(jobs=jobs)


def _decide(sweep: prepared.Sweep, workdir: str, promise: Promise, confidence: float) -> Decision:
    rows = prepared.measured(sweep, workdir)
    temperature = sweep.jobs[0].setting.temperature
    points = collect(rows, sweep.config, "") if rows else None
    if points is None or points.expert(temperature, VALIDATION) is None:
        raise UserError(
            "the expert's own decoding failed, and with it every comparison; look at the expert's "
            "checkpoint and dtype"
        )
    return decide(points, temperature, promise, confidence)
