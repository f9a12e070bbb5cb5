"""A process of its own, from its start to its first token, with an empty cache of compilations and
with a full one: `python -m speccascade.benchmark.growth.start JSON`."""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

from speccascade.benchmark import decoding
from speccascade.benchmark.clock import Timed
from speccascade.benchmark.growth.series import Growth, Series, speculative, subject
from speccascade.errors import UserError


def first_token(section: dict) -> None:
    """Makes the pair, answers a prompt with one token, and says what memory that took at most."""
    made, case = subject(section), speculative(section)
    program = decoding.program_of(made, case)
    rows = decoding.rows_of(made, case, [made.requests[0]._replace(max_new_tokens=1)])
    program.run(rows, program.prefill(rows)).done.block_until_ready()
    print(_most_memory())


def _most_memory() -> int:
    """Returns the bytes that this process has had at most, without the one that started it.

    Linux counts the latter in what `getrusage` says.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS


def _layers(section, size):
    expert = {**section["expert"], "num_layers": size}
    own = json.dumps({**section, "expert": expert, "new_tokens": 1})
    full = tempfile.TemporaryDirectory()

    def run(cache):
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "JAX_COMPILATION_CACHE_DIR": cache.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        command = [sys.executable, "-m", __spec__.name, own]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"a process that starts ended with: {done.stderr.strip()[-200:]}")
        return int(done.stdout)

    def series(warm, cache):
        timed = Timed(warm, cache, run, int)
        return Series(timed, lambda measured: measured.seconds, lambda measured: measured.result)

    return {
        "cold": series(lambda: None, tempfile.TemporaryDirectory),
        "warm": series(lambda: run(full), lambda: full),
    }


LAYERS = Growth(
    "layers of the expert",
    "s from a process's start to its first token",
    "MB of the process at most",
    _layers,
)


if __name__ == "__main__":
    first_token(json.loads(sys.argv[1]))
