"""A data set and a sweep: what they take by slots and by settings."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from speccascade import decode
from speccascade.benchmark import decoding
from speccascade.benchmark.clock import Measured, Timed
from speccascade.benchmark.decoding import Program
from speccascade.benchmark.growth.series import (
    PROGRAM,
    Growth,
    Series,
    memory_of,
    speculative,
    subject,
)
from speccascade.benchmark.subject import Case, Subject
from speccascade.decode import loop, refill
from speccascade.inference.engine import Request, rule_kind, rules_by_row

Make = Callable[[Sequence[int]], refill.Fresh]


def _refilled(program: Program, make: Callable[[int | None], Make], count: int, slots: int):
    """Returns the answering of `count` prompts in slots that are refilled, and its memory.

    Args:
      program: what decodes; its rule is not read.
      make: returns what `decode.stream` takes, with answers of so many tokens at most.
      count: how many prompts.
      slots: B.
    """

    def answer(most):
        parts = decode.stream(program.decoder, program.params, make(most), count, slots)
        return sum(int(answer.output.num_tokens) for part in parts for answer in part)

    def memory(_):
        fresh = make(None)(range(refill.rows_at_once(slots)))
        first = partial(refill.begin, program.decoder, slots)
        batch = jax.eval_shape(first, program.params, fresh, np.ones(slots, bool))
        run = loop.run.lower(program.decoder, program.params, *batch, np.int32(1))
        return memory_of(run.compile())

    return Timed(lambda: answer(1), lambda: None, lambda _: answer(None), int), memory


def _in_batches(program: Program, made: Subject, case: Case, slots: int) -> Timed:
    """Returns the answering of all prompts in batches that wait for their last row."""

    def answer(most):
        emitted = 0
        for start in range(0, len(made.requests), slots):
            part = list(made.requests[start : start + slots])
            part += [part[0]._replace(max_new_tokens=0)] * (slots - len(part))
            rows = decoding.rows_of(made, case, _short(part, most))
            emitted += int(np.sum(program.run(rows, program.prefill(rows)).count))
        return emitted

    return Timed(lambda: answer(1), lambda: None, lambda _: answer(None), int)


def _short(requests: Sequence[Request], most: int | None) -> list[Request]:
    if most is None:
        return list(requests)
    return [r._replace(max_new_tokens=min(most, r.max_new_tokens)) for r in requests]


def _slots(section, size):
    made = subject(section, section["num_prompts"])
    lengths = np.random.default_rng(0).integers(1, made.max_new_tokens + 1, len(made.requests))
    requests = [
        request._replace(max_new_tokens=int(length))
        for request, length in zip(made.requests, lengths, strict=True)
    ]
    made = dataclasses.replace(made, requests=requests)
    case = speculative(section)
    program = decoding.program_of(made, case)

    def make(most):
        short = _short(made.requests, most)
        return lambda indices: (
            (program.rule,),
            decoding.rows_of(made, case, [short[i] for i in indices]),
        )

    refilled, memory = _refilled(program, make, len(requests), size)
    in_batches = _in_batches(program, made, case, size)
    return {
        "refilled": Series(refilled, _rate, memory),
        "in batches": Series(in_batches, _rate, memory),
    }


def _settings(section, size):
    made = subject(section, section["sweep_prompts"])
    return {
        name: _sweep(made, [speculative(section, **entry) for entry in entries[:size]], section)
        for name, entries in section["sweeps"].items()
    }


def _sweep(made: Subject, cases: Sequence[Case], section) -> Series:
    """Returns the answering of every prompt under every setting, as an evaluation does it."""
    program = decoding.program_of(made, cases[0])
    settings = [case.setting for case in cases]
    kinds = list({rule_kind(setting): setting for setting in settings}.values())
    asked = [(setting, request) for setting in settings for request in made.requests]

    def make(most):
        short = [(setting, *_short([request], most)) for setting, request in asked]

        def fresh(indices):
            of_rows, requests = zip(*(short[i] for i in indices), strict=True)
            rules, index = rules_by_row(of_rows, kinds)
            rows = decoding.rows_of(made, cases[0], requests)
            return rules, rows._replace(rule_index=np.array(index, np.int32))

        return fresh

    timed, memory = _refilled(program, make, len(asked), section["sweep_slots"])
    return Series(timed, lambda measured: measured.seconds, memory)


def _rate(measured: Measured) -> float:
    return measured.result / measured.seconds


SLOTS = Growth("slots", "tokens/s of a data set", PROGRAM, _slots)
SETTINGS = Growth("settings of a sweep", "s of the sweep", PROGRAM, _settings)
