"""A data set rather than a batch: any number of prompts under settings of one program.

Prompts of like length share a cache of their own room; within it, a row that is done is given the
next prompt (`decode.stream`). What has no loop of blocks goes on in fixed batches, and so do rows
that do not divide over a mesh.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from speccascade import decode
from speccascade.decode import Answered, refill
from speccascade.inference.engine import Engine, Request, prompt_slots
from speccascade.inference.setting import Setting
from speccascade.sharding import hosts

# A group of prompts has so many for each row, or joins the next longer one: each compiles programs
# of its own, and its last rows end alone.
WORTH = 4


def answers(
    engine: Engine,
    settings: Sequence[Setting],
    requests: Sequence[Request],
    kinds: Sequence[Setting],
    slots: int,
) -> Iterator[list[Answered]]:
    """Answers prompts, each under its own setting, in `slots` rows.

    Tokens do not depend on which other prompts there are, nor on the slots: all noise goes by
    example and seed. What sums are rounded to may, where rows are fewer than four or in bfloat16.

    Args:
      engine: the pair.
      settings: per prompt; of one `program`.
      requests: per prompt.
      kinds: as in `Engine.prepare`.
      slots: rows decoded at a time.

    Yields:
      The answers that were found done together, as soon as they are known.
    """
    refills = refilled(engine, settings[0], slots) if settings else False
    for width, group in groups(engine, requests, slots):
        own = dataclasses.replace(engine, prompt_slots=width)
        asked = [settings[i] for i in group], [requests[i] for i in group]
        parts = (_refilling if refills else in_batches)(own, *asked, kinds, slots)
        for part in parts:
            yield [answer._replace(index=group[answer.index]) for answer in part]


def refilled(engine: Engine, setting: Setting, slots: int) -> bool:
    """Returns whether rows of a setting's program are given the next prompt as they are done."""
    found = setting.method.decoder(engine.room(), setting)
    return found is not None and slots % refill.parts_of(found[0]) == 0


def groups(
    engine: Engine, requests: Sequence[Request], slots: int
) -> list[tuple[int, list[int]]]:
    """Returns prompts of like length, longest first: their room, and which they are, in order.

    The rooms are the engine's own and its halves, so that they do not hang on which prompts are
    left of a set. The longest come first: what they take is known before much was done.
    """
    widths = [engine.prompt_slots]
    while widths[-1] > prompt_slots(1):
        widths.append(prompt_slots(-(-widths[-1] // 2)))
    lengths = np.array([len(request.prompt) for request in requests])
    found, first = [], 0
    for place, width in enumerate(reversed(widths), 1):
        last = place == len(widths)
        own = np.flatnonzero((lengths >= first) & ((lengths <= width) | last))
        if len(own) >= WORTH * slots or (last and len(own)):
            found.append((width, own.tolist()))
            first = width + 1
    return found[::-1]


def _refilling(engine, settings, requests, kinds, slots) -> Iterator[list[Answered]]:
    engine.check(settings[0])
    method = settings[0].method
    decoder, params = method.decoder(engine.room(), settings[0])

    def make(indices):
        rules, rows = engine.rows(
            [settings[i] for i in indices], [requests[i] for i in indices], kinds
        )
        return rules, method.asked(rows)

    for part in decode.stream(decoder, params, make, len(requests), slots):
        yield [answer._replace(output=method.booked(answer.output)) for answer in part]


def in_batches(
    engine: Engine,
    settings: Sequence[Setting],
    requests: Sequence[Request],
    kinds: Sequence[Setting],
    slots: int,
) -> Iterator[list[Answered]]:
    """Does what `answers` does in batches that go on until their last row is done.

    A row's seconds are an equal part of its batch's. The last batch is filled up with rows that ask
    for nothing.
    """
    for start in range(0, len(requests), slots):
        began = time.monotonic()
        part = range(start, min(start + slots, len(requests)))
        missing = slots - len(part)
        asked = [requests[i] for i in part]
        output = engine.prepare(
            [settings[i] for i in part] + [settings[start]] * missing,
            asked + [asked[0]._replace(max_new_tokens=0)] * missing,
            kinds,
        )()
        output = hosts.gather(output)
        seconds = (time.monotonic() - began) / len(part)
        yield [
            Answered(i, jax.tree.map(lambda x, row=row: x[row], output), seconds)
            for row, i in enumerate(part)
        ]
