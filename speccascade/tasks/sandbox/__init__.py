"""Programs that a model wrote, run where they can do no harm. Linux only.

`jail.py` says what keeps them in. It is tried before it is trusted: `require` runs a program that
attempts what must not work.
"""

import dataclasses
import functools
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile

from speccascade.errors import UserError
from speccascade.tasks.sandbox import jail

_JAIL = pathlib.Path(__file__).with_name("jail.py")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
      seconds: wall-clock time, the interpreter's start included; also processor seconds.
      memory_bytes: address space of each process.
      processes: at a time, threads counted.
      disk_bytes: all files together, which are in memory.
    """

    seconds: float = 10.0
    memory_bytes: int = 1 << 29
    processes: int = 8
    disk_bytes: int = 1 << 24


class Unavailable(UserError):
    """The isolation cannot be had; the message says what failed, and the program has not run."""


def passes(program: str, limits: Limits = Limits()) -> bool:
    """Returns whether a Python program comes to its end within the limits without an error.

    Leaving early with status 0 is not the end. What it prints is dropped, and threads and processes
    that it leaves behind end with it.

    Raises:
      Unavailable: the program could not be isolated and has not run.
    """
    token = secrets.token_hex(16)
    end = f"\n\nimport os as _os\n_os.write({jail.REPORT_FD}, b'{token}'); _os._exit(0)\n"
    return _run(program + end, limits) == token


def _run(program: str, limits: Limits) -> str:
    """Returns what the program reports, nothing if it did not end well."""
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="speccascade-") as root:
            arguments = {
                **dataclasses.asdict(limits),
                "root": root,
                "report": writing,
                "python": _interpreter(),
                "libraries": sorted({os.path.realpath(sys.base_prefix), sys.base_exec_prefix}),
            }
            status, errors = _start(json.dumps(arguments), program, writing, limits.seconds)
        if status == jail.BROKEN and errors:  # the program itself has nothing to say them with
            raise Unavailable(errors.strip())
        os.set_blocking(reading, False)
        try:
            report = os.read(reading, 4096)
        except BlockingIOError:
            report = b""
    finally:
        os.close(reading)
        os.close(writing)
    return report.decode(errors="replace") if status == 0 else ""


def _start(arguments: str, program: str, report: int, seconds: float) -> tuple[int | None, str]:
    """Returns the jail's exit status, None if time was up, and what it says of itself."""
    command = [_interpreter(), "-I", "-S", str(_JAIL), arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(report,),
        env={},
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(program.encode("utf-8", "replace"), timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()  # its children die with it
            process.communicate()
            return None, ""
    return process.returncode, errors.decode(errors="replace")


def _interpreter() -> str:
    """The interpreter behind a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


# Ends well only where everything that must not work does not work.
_TRIAL = """
import ctypes, os, socket

def refused(*attempts):
    for attempt in attempts:
        try:
            attempt()
        except (OSError, MemoryError):
            continue
        raise SystemExit("allowed")

def fork_many():
    for _ in range(64):
        if os.fork() == 0:
            import time
            time.sleep(60)

libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000) == -1
assert os.getuid() != 0 and os.getpid() < 10
assert not os.path.exists("/proc/self") and not os.path.exists(@HERE@)
refused(
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    lambda: open("/usr/written", "w"),
    lambda: bytearray(@MEMORY@),
    lambda: open("large", "wb").write(bytes(@DISK@ + 4096)),
    lambda: os.memfd_create("memory"),
    fork_many,
)
"""


@functools.cache
def _trouble() -> str | None:
    """What keeps programs from being isolated here, None if nothing does."""
    if not sys.platform.startswith("linux"):
        return "it needs Linux"
    limits = Limits(seconds=30.0, memory_bytes=1 << 28)
    trial = _TRIAL.replace("@HERE@", repr(str(_JAIL)))
    trial = trial.replace("@MEMORY@", str(limits.memory_bytes))
    trial = trial.replace("@DISK@", str(limits.disk_bytes))
    try:
        return None if passes(trial, limits) else "a program on trial could leave its limits"
    except (Unavailable, OSError) as error:
        return str(error)


def require() -> None:
    """Raises UserError where programs cannot be isolated."""
    if trouble := _trouble():
        raise UserError(
            f"programs that a model wrote cannot be run in isolation here ({trouble}), so they are "
            "not run at all; use a Linux machine that grants user namespaces"
        )
