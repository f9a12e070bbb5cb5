"""A profiler trace of a few steps."""

import contextlib
from collections.abc import Iterator

import jax

from speccascade.sharding import hosts

# The first two steps of a process compile, or wait for whatever does.
_AFTER, _STEPS = 2, 3


class Trace:
    """Traces a few steps of a run on its first process, which `scripts/train.py --profile` asks."""

    def __init__(self, directory: str, begin: int, end: int):
        """Chooses the steps: three, after two others where there are so many.

        Args:
          directory: where the trace goes; "" for none.
          begin: the run's next step.
          end: its last step, not included.
        """
        first = max(begin, min(begin + _AFTER, end - _STEPS))
        wanted = directory and hosts.is_first()
        self._steps = range(first, min(first + _STEPS, end)) if wanted else range(0)
        self._directory = directory

    @contextlib.contextmanager
    def step(self, number: int, last: list) -> Iterator[None]:
        """Takes a step within the context, under its number in the trace.

        Args:
          number: of the step, from 0.
          last: arrays that the step before made, and this one will put its own into.
        """
        if number not in self._steps:
            yield
            return
        if number == self._steps[0]:
            jax.block_until_ready(last)
            jax.profiler.start_trace(self._directory)
        ends = True
        try:
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                yield
            if ends := number == self._steps[-1]:
                jax.block_until_ready(last)
        finally:
            if ends:
                jax.profiler.stop_trace()
