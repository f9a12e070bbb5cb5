"""One batch: what a token takes by prompt, cache, vocabulary and rows."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from speccascade.benchmark import decoding, steps, synthetic
from speccascade.benchmark.growth.series import (
    ALONE,
    PROGRAM,
    Ahead,
    Growth,
    Series,
    per_token,
    speculative,
    subject,
)
from speccascade.benchmark.subject import Subject
from speccascade.models import memory

_PASSES = 16  # of one timing


def _decoded(section: Mapping[str, Any], made: Subject, batch: int = 1) -> dict[str, Ahead]:
    """Returns the expert alone and blocks that it scores."""
    cases = {"expert alone": ALONE, "spec": speculative(section)}
    (requests,) = made.batches(batch, 1)
    return {
        name: Ahead(decoding.program_of(made, case), decoding.rows_of(made, case, requests))
        for name, case in cases.items()
    }


def _behind_prompts(programs: Mapping[str, Ahead]) -> dict[str, Series]:
    return {
        name: Series(program.decoding, per_token, partial(_memory, program))
        for name, program in programs.items()
    }


def _prompt(section, size):
    programs = _decoded(section, subject(section, prompt_length=size))
    alone = programs["expert alone"]
    reading = Series(
        alone.reading, lambda measured: 1000 * measured.seconds / size, lambda _: alone.memory
    )
    return _behind_prompts(programs) | {"a token of the prompt": reading}


def _vocabulary(section, size):
    return _behind_prompts(_decoded(section, subject(section, vocab_size=size)))


def _batch(section, size):
    return _behind_prompts(_decoded(section, subject(section, prompts=size), size))


def _cache(section, size):
    window = {"window": section["window"], "window_pattern": (True,)}
    (whole, params), (sliding, _) = (
        synthetic.build({**section["expert"], **own}, 0) for own in ({}, window)
    )

    def one(model, position):
        timed = steps.step(model, params, 1, 1, position, size, _PASSES)
        cache = jax.eval_shape(partial(model.init_cache, 1, size, 1))
        return Series(
            timed,
            lambda measured: 1000 * measured.seconds / _PASSES,
            lambda _: memory.size(cache),
        )

    return {
        "full": one(whole, size),
        "first tokens of it": one(whole, section["prompt_length"]),
        f"window of {section['window']}": one(sliding, size),
    }


PROMPT = Growth("prompt, tokens", "ms per token", PROGRAM, _prompt)
SLOTS_OF_CACHE = Growth("cache, tokens", "ms per pass of the expert", "MB of the cache", _cache)
VOCABULARY = Growth("vocabulary, token ids", "ms per token", PROGRAM, _vocabulary)
BATCH = Growth("batch, rows", "ms per token of all rows", PROGRAM, _batch)


def _memory(program: Ahead, _: Any) -> int:
    return program.memory
