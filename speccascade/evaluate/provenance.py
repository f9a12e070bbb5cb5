"""What a result depends on besides its setting: the code, the machine."""

import hashlib
import os
import platform
from functools import cache

import jax

import speccascade

# What cannot change a result. Everything else in the package counts, new files too.
_NO_PART = (
    "report",
    "training",
    "tuning",
    "app.py",
    "api.py",
    "generate.py",
    "launch.py",
    "benchmark",
    "compilation_cache.py",
    "__init__.py",
)


@cache
def code_version() -> str:
    """Returns 16 hex digits that change with every file that can change a result."""
    root = os.path.dirname(speccascade.__file__)
    digest = hashlib.sha256()
    for path in sorted(_sources(root)):
        digest.update(path.replace(os.sep, "/").encode() + b"\0")
        with open(os.path.join(root, path), "rb") as file:
            digest.update(file.read() + b"\0")
    return digest.hexdigest()[:16]


def _sources(root: str) -> list[str]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), root)
            if name.endswith(".py") and path.split(os.sep)[0] not in _NO_PART:
                found.append(path)
    return found


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
