"""What is timed at one size of a growth, and programs whose memory is known."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from speccascade import decode
from speccascade.benchmark.clock import Measured, Timed
from speccascade.benchmark.decoding import Program
from speccascade.benchmark.subject import Case, Subject, case, load
from speccascade.decode import loop
from speccascade.inference.methods import EXPERT
from speccascade.inference.setting import Setting

PROGRAM = "MB of weights, caches and temporaries"
ALONE = Case(Setting(EXPERT), None)


class Series(NamedTuple):
    """One line of a plot, at one size.

    Attributes:
      timed: what is timed.
      value: makes of it what is plotted.
      memory: makes of it the bytes that it takes.
    """

    timed: Timed
    value: Callable[[Measured], float]
    memory: Callable[[Measured], int]


class Growth(NamedTuple):
    """Something that time and memory may grow with.

    Attributes:
      grows: what, with its unit.
      figure: what is plotted against it.
      memory: what its memory is.
      at: maps `config.growth` and a size to the series there, by name.
    """

    grows: str
    figure: str
    memory: str
    at: Callable[[Mapping[str, Any], int], dict[str, Series]]


def subject(
    section: Mapping[str, Any],
    prompts: int = 1,
    prompt_length: int | None = None,
    **changes: Any,
) -> Subject:
    """Returns the pair of `config.growth`, both models with `changes`."""
    synthetic: dict[str, Any] = {
        role: {**section[role], **changes} for role in ("expert", "drafter")
    }
    synthetic["prompt_length"] = prompt_length or section["prompt_length"]
    config = ml_collections.ConfigDict(
        {"synthetic": synthetic, "benchmark": {"max_new_tokens": section["new_tokens"]}}
    )
    return load(config, prompts)


def speculative(section: Mapping[str, Any], **setting: Any) -> Case:
    """Returns the case of blocks of `config.growth`, by default of the rule `spec`."""
    entry = {"rule": "spec", "draft_length": section["draft_length"]} | setting
    return case({**entry, "agreement": section["agreement"]}, True, {})


class Ahead:
    """A program of one batch, compiled before it runs: its memory is the compiler's own figure.

    Attributes:
      reading: reads the prompts; timed.
      decoding: decodes behind them; what is kept is the number of tokens.
      memory: bytes of arguments, results and temporaries, of the larger of the two.
    """

    def __init__(self, program: Program, rows: decode.Rows):
        decoder, rules = program.decoder, (program.rule,)
        read = loop.prefill.lower(decoder, program.params, rows).compile()
        shapes = jax.eval_shape(partial(loop.prefill, decoder), program.params, rows)
        run = loop.run.lower(decoder, program.params, rules, rows, shapes).compile()
        self.memory = max(map(memory_of, (read, run)))
        kept: list[Any] = []

        def warm():
            kept[:] = [read(program.params, rows)]
            return run(program.params, rules, rows, state())

        def state():
            return jax.tree.map(jnp.copy, kept[0])  # its buffers are donated

        self.reading = Timed(
            lambda: read(program.params, rows),
            lambda: None,
            lambda _: read(program.params, rows),
        )
        self.decoding = Timed(
            warm,
            state,
            lambda state: run(program.params, rules, rows, state),
            lambda state: int(np.sum(state.count)),
        )


def memory_of(compiled: Any) -> int:
    """Returns the bytes that a compiled program takes while it runs, its arguments included."""
    found = compiled.memory_analysis()
    own = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + own + found.temp_size_in_bytes


def per_token(measured: Measured) -> float:
    """Returns milliseconds per token, of all rows together."""
    return 1000 * measured.seconds / measured.result
