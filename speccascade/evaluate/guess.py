"""What a sweep may cost, guessed in a second: no program is compiled, no token decoded.

A step of decoding reads all parameters once, and on the machines at hand little else takes long.
"""

import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from speccascade.evaluate.cost import Speed, needed
from speccascade.evaluate.jobs import Job
from speccascade.inference.engine import Engine
from speccascade.inference.methods import named

_BYTES = 2**27
_KEPT = 2.0  # tokens of a block, for want of knowledge


def speeds(engine: Engine, jobs: Iterable[Job]) -> dict[tuple[str, str], Speed]:
    """Returns for all that `cost` needs what the memory's speed allows, compiling left out.

    Args:
      engine: the pair.
      jobs: what is left of the sweep.
    """
    rate = _bytes_per_second()
    sizes = {
        role: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
        for role, params in engine.pair.params.items()
    }
    found = {}
    for kind, name in needed(jobs):
        role = named(name).alone
        step = sizes[role] if role else sum(sizes.values()) / _KEPT
        found[kind, name] = Speed(engine.max_new_tokens * step / rate, 0.0)
    return found


def _bytes_per_second() -> float:
    """Returns how fast the device reads its memory, by one sum."""
    values = jnp.zeros(_BYTES // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    total(values).block_until_ready()
    began = time.perf_counter()
    total(values).block_until_ready()
    return _BYTES / (time.perf_counter() - began)
