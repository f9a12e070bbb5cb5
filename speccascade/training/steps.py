"""The loop around training steps: metrics, checkpoints, going on after an interruption."""

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tqdm

from speccascade.errors import UserError
from speccascade.inputs import optional_fields, values
from speccascade.sharding import chips, hosts
from speccascade.training.step import Work
from speccascade.training.tracing import Trace
from speccascade.workdir import checkpoints
from speccascade.workdir.training_metrics import MetricsWriter

_COUNTS = ("num_steps", "batch_size", "log_every", "eval_every", "checkpoint_every")
_RATES = ("learning_rate", "weight_decay", "clip_norm")

MAY_CHANGE = ("train.accumulate", "train.remat")
"""What a training may go on without: it says how a step is computed, and not what."""


def check(
    c: Any, more: Sequence[str] = (), known: Collection[str] = (), example: str = ""
) -> None:
    """Raises UserError where numbers of the config's `train` are out of range or do not fit.

    Args:
      c: the section.
      more: further fields that must be whole numbers, at least 1.
      known: what else the section may have; anything beyond is refused.
      example: a config that has all fields.
    """
    counts = (*_COUNTS, *more)
    needed = ("seed", "optimizer", "warmup_steps", *counts, *_RATES)
    optional_fields.check("train", values.section("train", c, needed, example), (*needed, *known))
    values.whole("train.seed", c["seed"])
    values.whole("train.warmup_steps", c["warmup_steps"], 0)
    for name in counts:
        values.whole(f"train.{name}", c[name], 1)
    values.whole("train.accumulate", c.get("accumulate", 1), 1)
    values.boolean("train.remat", c.get("remat", False))
    if not 0 <= values.number("train.ema_decay", c.get("ema_decay", 0.0)) < 1:
        raise UserError(f"train.ema_decay={c['ema_decay']} must be at least 0 and below 1")
    for name in _RATES:
        if values.number(f"train.{name}", c[name]) < 0:
            raise UserError(f"train.{name}={c[name]} must be at least 0")
    if c["checkpoint_every"] % c["log_every"]:
        raise UserError(
            f"train.checkpoint_every ({c['checkpoint_every']}) must be a multiple of "
            f"train.log_every ({c['log_every']}), or a restart would log other means"
        )


def run(
    c: Mapping[str, Any],
    workdir: str,
    saved: ocp.CheckpointManager,
    start: tuple[Any, Any],
    read: Callable[[int], Iterator[Any]],
    advance: Callable[[Any, Any, int, Any], tuple[Any, Any, dict[str, jax.Array], Work]],
    evaluate: Callable[[Any], dict[str, float]],
    shown: str,
    claimed: Callable[[], None] | None = None,
    profile: str = "",
    prepare: Callable[[Any, int], None] | None = None,
) -> dict[str, float]:
    """Trains, or goes on from the newest checkpoint.

    Args:
      c: the config's `train`: `num_steps`, `log_every`, `eval_every`, `checkpoint_every`.
      workdir: where metrics go.
      saved: the workdir's checkpoints.
      start: parameters and optimiser state before the first step.
      read: yields the batches of a step, by its number from 0, and of those after it. A batch is
        asked for when its step begins, and depends on the number and on what `prepare` made.
      advance: maps parameters, optimiser state, the step's number and its batch to the next two,
        what is logged of it, `loss` among it, and what it had to do. A step depends on nothing
        else.
      evaluate: maps parameters to figures.
      shown: the figure that the progress bar shows.
      claimed: from `claim`, on the process that writes for all; called before anything is written.
      profile: where a trace of a few steps goes; "" for none.
      prepare: called with the parameters and the next step's number before the first step and after
        every `log_every`; the time that it takes is no step's.

    Returns:
      The last figures.

    Raises:
      UserError: something could not be written, or another process has taken the workdir over.
    """
    params, state = start
    step = 0
    if saved.latest_step() is not None:
        step, params, state = checkpoints.restore(saved, params, state)
    with hosts.agreed():
        metrics = MetricsWriter(workdir, step, claimed) if hosts.is_first() else None

    def log(values):
        with hosts.agreed():
            if metrics is not None:
                metrics.write(step, values)

    figures = evaluate(params)
    shape = {"total": c["num_steps"], "initial": step, "unit": "step", "smoothing": 0.05}
    bar = tqdm.tqdm(**shape, mininterval=5, disable=not hosts.is_first())
    trace = Trace(profile, step, c["num_steps"])
    if profile and step >= c["num_steps"] and hosts.is_first():
        told = f"nothing is left to trace: {workdir} has all its {step} steps; take a new workdir"
        print(told, file=sys.stderr, flush=True)
    batches = read(step)
    pending: list[dict] = []
    done: list[Work] = []
    started = time.monotonic()
    while step < c["num_steps"]:
        if prepare is not None and not pending:
            prepare(params, step)
            started = time.monotonic()
        with trace.step(step, pending):
            params, state, logged, work = advance(params, state, step, next(batches))
            pending.append(logged)
        done.append(work)
        step += 1
        if len(pending) > 1:  # one step ahead is enough, and the bar keeps to the truth
            jax.block_until_ready(pending[-2])
        bar.update()
        last = step == c["num_steps"]
        if step % c["log_every"] == 0 or last:
            means = {k: float(np.mean([np.float32(p[k]) for p in pending])) for k in pending[0]}
            seconds = time.monotonic() - started
            devices = jax.tree.leaves(params)[0].sharding.device_set
            log({**means, **_rates(done, seconds, devices)})
            bar.set_postfix({"loss": f"{means['loss']:.4f}", shown: f"{figures[shown]:.4f}"})
            pending, done = [], []
        if step % c["eval_every"] == 0 or last:
            figures = evaluate(params)
            log(figures)
        if step % c["checkpoint_every"] == 0 or last:
            with hosts.agreed():
                if metrics is not None:
                    metrics.keep()
            checkpoints.save(saved, step, params, state)
        if not pending:
            started = time.monotonic()
    bar.close()
    if metrics is not None:
        metrics.close()
    return figures


def _rates(
    done: Sequence[Work], seconds: float, devices: Collection[jax.Device]
) -> dict[str, float]:
    """Returns how fast steps were; of devices whose peak is not known, no share of it.

    The peak is that of bfloat16, and only what a step has to do counts: nothing that
    rematerialisation computes again, and nothing that pads a batch.
    """
    tokens, ops = (sum(column) for column in zip(*done, strict=True))
    rates = {"seconds_per_step": seconds / len(done), "tokens_per_second": tokens / seconds}
    if (chip := chips.of(next(iter(devices)))) is not None:
        rates["share_of_peak"] = ops / (seconds * chip.flops * len(devices))
    return rates
