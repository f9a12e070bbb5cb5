"""How much memory this machine has, which is what a CPU device has."""

import os
import pathlib

_MACHINE = pathlib.Path("/proc/meminfo")
_GROUP = pathlib.Path("/sys/fs/cgroup")  # a container's limits


def total() -> int | None:
    """Returns the bytes that there are, within the limit of a container; None where not known."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # none of POSIX, or no such name
        whole = None
    return min((n for n in (whole, _number("memory.max")) if n is not None), default=None)


def free() -> int | None:
    """Returns the bytes that programs may still take, files that are cached counted as free.

    Where the machine does not tell, those that there are; None where that is not known either.
    """
    limit, used = _number("memory.max"), _number("memory.current")
    cached = _line(_GROUP / "memory.stat", "inactive_file")
    in_group = None if None in (limit, used) else limit - used + (cached or 0)
    kilobytes = _line(_MACHINE, "MemAvailable:")
    machine = total() if kilobytes is None else 1024 * kilobytes
    return min((n for n in (machine, in_group) if n is not None), default=None)


def _number(name: str) -> int | None:
    """Returns what a file of the container's group says; None for none, or "max"."""
    text = _text(_GROUP / name).strip()
    return int(text) if text.isdecimal() else None


def _line(path: pathlib.Path, name: str) -> int | None:
    """Returns the number behind a name at the beginning of a line, None where there is none."""
    for line in _text(path).splitlines():
        if line.split()[:1] == [name]:
            return int(line.split()[1])
    return None


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
