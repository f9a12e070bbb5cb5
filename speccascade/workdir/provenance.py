"""What a result depends on besides its setting: how this machine rounds, and how fast it is."""

import os
import platform
from functools import cache

import jax

from speccascade.models import native


@cache
def numerics() -> str:
    """Returns what rounding depends on beside the config's mesh: JAX and the kind of device.

    Not the number of processes: the same mesh computes the same however many drive it.
    """
    return f"{library()}, {jax.devices()[0].device_kind}"


def library() -> str:
    """Returns what computes: JAX's version, and whether `models.native` takes products of it."""
    return f"jax {jax.__version__}" + (" with native products" if native.loaded() else "")


@cache
def machine() -> str:
    """Returns what time depends on."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f"{_processor()}, {count} cores, {jax.device_count()} {jax.devices()[0].device_kind}"
    return name if jax.process_count() == 1 else f"{name} of {jax.process_count()} processes"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
