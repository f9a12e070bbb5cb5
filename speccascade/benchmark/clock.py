"""Medians of interleaved runs, in a given time."""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from speccascade.benchmark.progress import Progress

LEAST_TRIALS = 2  # however little time there is


class Timed(NamedTuple):
    """A call to be timed.

    Attributes:
      warm: compiles what `prepare` and `run` take, and does little else.
      prepare: makes what `run` consumes; not timed.
      run: what is timed, until its result is there.
      keep: what is kept of the result.
    """

    warm: Callable[[], Any]
    prepare: Callable[[], Any]
    run: Callable[[Any], Any]
    keep: Callable[[Any], Any] = lambda result: None


class Measured(NamedTuple):
    """A call's times in seconds, by trial, and what was kept of its last result."""

    times: tuple[float, ...]
    result: Any

    @property
    def seconds(self) -> float:
        """The median."""
        return float(np.median(self.times))


def warm(calls: Mapping[Any, Timed], progress: Progress, after: float = 0.0) -> None:
    """Compiles all calls.

    Args:
      calls: by name.
      progress: told how far it is.
      after: seconds that they will then run.
    """
    began = time.monotonic()
    for done, (name, call) in enumerate(calls.items()):
        each = (time.monotonic() - began) / max(done, 1)
        progress.show((len(calls) - done) * each + after, f"compiling {shown(name)}")
        jax.block_until_ready(call.warm())


def measure(
    calls: Mapping[Any, Timed],
    trials: int,
    guess: Callable[[Any], float],
    progress: Progress,
    deadline: float = float("inf"),
) -> Iterator[tuple[Any, Measured]]:
    """Runs all calls in turn, `trials` times or fewer, and yields each as soon as it is known.

    Each trial passes over all calls, beginning with another one, the last with the first: what
    else the machine does meanwhile falls on all alike.

    Args:
      calls: by name; warm.
      trials: times that each is timed.
      guess: about how many seconds a call takes that did not run yet.
      progress: told how far it is.
      deadline: what `progress.elapsed` may be at the end: no trial begins that would not be done by
        then, though `LEAST_TRIALS` are run if so many are wanted.

    Yields:
      Names with their times, in the order of `calls`.
    """
    names = list(calls)
    times: dict[Hashable, list[float]] = {name: [] for name in names}
    took = {name: guess(name) for name in names}  # with what is not timed
    for trial in range(trials):
        rounds = trials - trial  # still to come
        if trial:
            least, each = max(LEAST_TRIALS - trial, 1), sum(took.values())
            while rounds > least and progress.elapsed + rounds * each > deadline:
                rounds -= 1
        first = 0 if rounds == 1 else (trial + 1) * len(names) // trials
        order = names[first:] + names[:first]
        for done, name in enumerate(order):
            rest = sum(took[other] for other in order[done:])
            progress.show(rest + (rounds - 1) * sum(took.values()), f"timing {shown(name)}")
            call, whole = calls[name], time.perf_counter()
            argument = jax.block_until_ready(call.prepare())
            began = time.perf_counter()
            result = jax.block_until_ready(call.run(argument))
            ended = time.perf_counter()
            times[name].append(ended - began)
            took[name] = ended - whole
            if rounds == 1:
                yield name, Measured(tuple(times[name]), call.keep(result))
        if rounds == 1:
            return


def shown(name: Hashable) -> str:
    """Returns a call's name as text."""
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)
