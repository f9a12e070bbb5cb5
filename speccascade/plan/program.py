"""Decode loop and prefill, compiled for a slice that is not there."""

import dataclasses
import re
import time
from collections import Counter

import jax

from speccascade.decode import loop
from speccascade.models.memory import local
from speccascade.plan import streams
from speccascade.plan.streams import Traffic
from speccascade.plan.subject import Inputs
from speccascade.sharding import hlo

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TooLarge(Exception):
    """The compiler found no room.

    Attributes:
      needed: bytes, as it says; 0 where it does not.
    """

    def __init__(self, message: str):
        super().__init__(message.partition("\n")[0])
        found = re.search(r"Used ([\d.]+)([KMGT]?)i?B? of|\(([\d.]+)([KMGT]?)\) exceeds", message)
        number, unit = [g for g in found.groups() if g is not None] if found else ("0", "")
        self.needed = int(float(number) * _UNITS[unit])


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled decode loop and what its prompts are read with; bytes are those of one device.

    Attributes:
      arguments: weights, caches, rows and state, as the loop has them laid out.
      temporaries: whatever else the loop needs while it runs.
      prefill_arguments: weights, rows and, as its results, caches and state of the prefill.
      prefill_temporaries: whatever else it needs.
      code: both programs, which lie in the same memory.
      collectives: what it exchanges.
      cached: number of cache arrays.
      aliased: how many of them the program overwrites in place.
      streams: of vocabulary-wide arrays, by depth of loops; see `streams.traffic`.
      seconds: what compiling took.
    """

    arguments: int
    temporaries: int
    prefill_arguments: int
    prefill_temporaries: int
    code: int
    collectives: list[hlo.Collective]
    cached: int
    aliased: int
    streams: list[Traffic]
    seconds: float

    @property
    def needed(self) -> int:
        """Bytes of the larger of the two, with the code of both."""
        prefill = self.prefill_arguments + self.prefill_temporaries
        return max(self.arguments + self.temporaries, prefill) + self.code


def compile_both(inputs: Inputs) -> Program:
    """Compiles `decode.loop.prefill` and `decode.loop.run`, the programs that decoding runs.

    Raises:
      TooLarge: one of them does not fit into a device's memory.
    """
    start = time.perf_counter()
    read = compile_lowered(loop.prefill.lower(inputs.decoder, inputs.params, inputs.rows))
    read = read.memory_analysis()
    compiled = compile_lowered(loop.run.lower(*inputs))
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    caches = jax.tree.leaves((inputs.state.drafter, inputs.state.expert))
    wanted = Counter(local(leaf) for leaf in caches)
    found = Counter(array.shape for array in hlo.aliased(text))
    return Program(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        prefill_arguments=read.argument_size_in_bytes + read.output_size_in_bytes,
        prefill_temporaries=read.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes + read.generated_code_size_in_bytes,
        collectives=hlo.collectives(text),
        cached=len(caches),
        aliased=sum((wanted & found).values()),
        streams=streams.traffic(text, inputs.device_vocab),
        seconds=seconds,
    )


def compile_lowered(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiles a program.

    Raises:
      TooLarge: it does not fit into a device's memory.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooLarge(str(error)) from None
