"""What a result depends on besides its setting: the code, the machine."""

import hashlib
import os
import pathlib
import platform
from functools import cache

import jax

# What cannot change a result. Everything else in the package counts, new files too.
_NO_PART = ("benchmark", "report", "runtime", "training", "tuning", "__init__.py")
_ROOT = pathlib.Path(__file__).parent.parent


@cache
def code_version() -> str:
    """Returns 16 hex digits that change with every file that can change a result."""
    digest = hashlib.sha256()
    for path in sorted(p.relative_to(_ROOT) for p in _ROOT.rglob("*.py")):
        if path.parts[0] not in _NO_PART:
            digest.update(path.as_posix().encode() + b"\0" + (_ROOT / path).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def numerics() -> str:
    """Returns what rounding depends on beside the config's mesh: JAX and the kind of device.

    Not the number of processes: the same mesh computes the same however many drive it.
    """
    return f"jax {jax.__version__}, {jax.devices()[0].device_kind}"


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
