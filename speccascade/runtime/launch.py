"""Behind `scripts/launch.py`: several processes of one command on this machine, as one program."""

import io
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from speccascade.errors import UserError

# After one process has failed the others have so long to end by themselves, in seconds: all of them
# may have the same to say. Then they are asked to end, and at last killed.
GRACE = 10.0
LAST_GRACE = 5.0

REFUSED = 2  # the exit code of a script that was given something wrong


class Ended(NamedTuple):
    """How a process ended: its number, and its exit code, negative for a signal."""

    process: int
    code: int

    def __str__(self) -> str:
        if self.code >= 0:
            return f"process {self.process} ended with exit code {self.code}"
        return f"process {self.process} was killed by {signal.Signals(-self.code).name}"


def launch(command: Sequence[str], num_processes: int) -> None:
    """Runs a command `num_processes` times with the flags that make one program of them.

    Their output appears with the process's number in front of each line.

    Args:
      command: of a script that has `--distributed`.
      num_processes: how many.

    Raises:
      UserError: the command cannot be started, or a process failed; the rest was ended then. The
        message says which one failed first, and how.
    """
    if not command:
        raise UserError("give a command: scripts/launch.py --processes=2 -- python SCRIPT ...")
    if num_processes < 1:
        raise UserError(f"--processes={num_processes} must be at least 1")
    flags = [f"--coordinator=localhost:{_free_port()}", f"--num_processes={num_processes}"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through `finally`
    ended: queue.Queue[Ended] = queue.Queue()
    started: list[subprocess.Popen] = []
    readers: list[threading.Thread] = []
    try:
        for i in range(num_processes):
            process = _start([*command, "--distributed", *flags, f"--process_id={i}"])
            started.append(process)
            for source, sink in (
                (process.stdout, sys.stdout.buffer),
                (process.stderr, sys.stderr.buffer),
            ):
                readers.append(_thread(_relay, source, sink, b"[%d] " % i))
            # Whoever waits for it alone knows at once: the first to end is the one to name.
            _thread(lambda i=i, p=process: ended.put(Ended(i, p.wait())))
        first = _first_failure(ended, num_processes)
    finally:
        stopped = _stop(started)
        for reader in readers:
            reader.join(LAST_GRACE)
    if first is not None:
        rest = f", stopped {', '.join(map(str, sorted(stopped)))}" if stopped else ""
        advice = "see above" if first.code == REFUSED else "start again to go on"
        raise UserError(f"{first}{rest}; {advice}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def _start(command: Sequence[str]) -> subprocess.Popen:
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}") from None


def _thread(function, *arguments) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _relay(source: io.BufferedReader, sink: BinaryIO, prefix: bytes) -> None:
    """Copies whole lines; a progress bar's are those that end with a carriage return."""
    line = b""
    while piece := source.read1(65536):
        *lines, line = (line + piece).replace(b"\r", b"\n").split(b"\n")
        sink.write(b"".join(prefix + each + b"\n" for each in lines if each))
        sink.flush()
    if line:
        sink.write(prefix + line + b"\n")
        sink.flush()


def _first_failure(ended: "queue.Queue[Ended]", num_processes: int) -> Ended | None:
    """Waits until all have ended well, or for `GRACE` after one has not; returns that one."""
    first: Ended | None = None
    deadline: float | None = None
    for _ in range(num_processes):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            one = ended.get(timeout=left)
        except queue.Empty:
            break
        if one.code and first is None:
            first, deadline = one, time.monotonic() + GRACE
    return first


def _stop(started: Sequence[subprocess.Popen]) -> set[int]:
    """Ends the processes that still run; returns their numbers."""
    running = {i for i, process in enumerate(started) if process.poll() is None}
    for i in running:
        started[i].terminate()
    deadline = time.monotonic() + LAST_GRACE
    for i in running:
        try:
            started[i].wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            started[i].kill()
            started[i].wait()
    return running
