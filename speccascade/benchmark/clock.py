"""Medians of interleaved runs."""

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Timed(NamedTuple):
    """A call to be timed.

    Attributes:
      prepare: makes what `run` consumes; not timed.
      run: what is timed, until its result is there.
      keep: what is kept of the result.
    """

    prepare: Callable[[], Any]
    run: Callable[[Any], Any]
    keep: Callable[[Any], Any] = lambda result: None


class Measured(NamedTuple):
    """The median of a call's times in seconds, and what was kept of its result."""

    seconds: float
    result: Any


def measure(
    calls: Mapping[Hashable, Timed], trials: int, advance: Callable[[], None] = lambda: None
) -> dict[Hashable, Measured]:
    """Runs every call once to warm up, then all of them in turn, `trials` times.

    Each trial passes over all calls, beginning with another one: what else the machine does
    meanwhile falls on all alike.

    Args:
      calls: by name.
      trials: times that each is timed.
      advance: told after each run, the warm-up included.
    """
    results, seconds = {}, {name: [] for name in calls}
    for name, call in calls.items():
        results[name] = call.keep(jax.block_until_ready(call.run(_prepared(call))))
        advance()
    names = list(calls)
    for trial in range(trials):
        first = trial * len(names) // trials
        for name in names[first:] + names[:first]:
            argument = _prepared(calls[name])
            began = time.perf_counter()
            jax.block_until_ready(calls[name].run(argument))
            seconds[name].append(time.perf_counter() - began)
            advance()
    return {name: Measured(float(np.median(seconds[name])), results[name]) for name in names}


def _prepared(call: Timed) -> Any:
    return jax.block_until_ready(call.prepare())
