"""Two real processes with two devices each, against one with four."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from speccascade import pairs
from speccascade.workdir import checkpoints, results
from tests import tiny_pair

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = [sys.executable, "scripts/launch.py", "--processes=2", "--"]
LONGEST = 300  # seconds; more is a hang
DEVICES = "--xla_force_host_platform_device_count"
# What gloo prints when it connects, a piece at a time: two of its threads may mix their pieces, and
# a line end may come between any two.
GLOO = re.compile(
    r"(\[\d+\] ?)?(\[Gloo\] Rank | is connected to | peer ranks\. "
    r"|Expected number of connected peer ranks is : |\d)*"
)


def start(*command, devices=2) -> subprocess.Popen:
    # What starts the tests in the background may have SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": f"{DEVICES}={devices}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process) -> tuple[int, list[str], list[str]]:
    """Returns the exit code and the lines of both outputs, without what gloo reports."""
    try:
        out, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.terminate()  # a launcher ends what it started
        raise
    lines = [line for line in out.splitlines() if not GLOO.fullmatch(line)]
    return process.returncode, lines, err.splitlines()


def program(name, argument="") -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.sharding.hosts_program", f"--name={name}"]
    return start(*LAUNCH, *command, f"--argument={argument}")


def test_arrays_and_values_get_to_every_process():
    code, out, err = finish(program("basics"))
    assert code == 0, err
    line = "process 1 has another checkpoint than process 0; give all the same"
    assert sorted(out) == sorted([f"[0] {line}", "[0] done", f"[1] {line}"])


@pytest.mark.slow
def test_checkpoints_are_saved_and_restored_by_all(tmp_path):
    code, out, err = finish(program("checkpoint", tmp_path))
    assert code == 0, err
    pair = tiny_pair.make()
    assert {f"[0] {pair.hash}", f"[1] {pair.hash}"} <= set(out)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        pair.params["expert"],
    )
    with checkpoints.manager(str(tmp_path), read_only=True) as saved:
        _, found, _ = checkpoints.restore(saved, like)
    jax.tree.map(np.testing.assert_array_equal, found, pair.params["expert"])


def test_what_one_process_refuses_ends_all():
    code, out, err = finish(program("refuse"))
    assert (code, out) == (2, [])
    said = [f"[{i}] error: process 1: my file is missing" for i in range(2)]
    assert sorted(err[:-1]) == said, err
    assert err[-1].startswith("error: process ") and err[-1].endswith("exit code 2; see above")


def test_a_defect_of_one_process_ends_all_and_keeps_its_traceback():
    code, _, err = finish(program("defect"))
    assert code == 2
    assert "[1] ZeroDivisionError: oh" in err and not any("[0] ZeroDiv" in line for line in err)
    assert "[0] error: process 1: failed with ZeroDivisionError, see its output" in err


def test_a_process_that_nobody_hears_ends_the_run_too():
    code, _, err = finish(program("alone"))
    assert code == 2 and "[1] error: nobody hears me" in err
    assert err[-1] == "error: process 1 ended with exit code 2; see above"


def check_death(run, victim, err):
    assert err[-1].startswith(f"error: process {victim} was killed by SIGKILL"), err[-1]
    assert err[-1].endswith("; start again to go on")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["coordinator", "worker"])
def test_when_one_process_is_killed_the_rest_ends_and_it_is_named(victim, tmp_path):
    run = program("endless", tmp_path)
    pids = [wait_for(lambda i=i: (tmp_path / str(i)).read_text(), run) for i in range(2)]
    os.kill(int(pids[victim]), signal.SIGKILL)
    began = time.monotonic()
    code, _, err = finish(run)
    assert code != 0 and time.monotonic() - began < 120
    check_death(run, victim, err)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_asked_to_end_ends(by, tmp_path):
    run = program("endless", tmp_path)
    pids = [wait_for(lambda i=i: (tmp_path / str(i)).read_text(), run) for i in range(2)]
    ask_to_end(int(pids[1]), by)
    code, _, err = finish(run)
    assert code != 0 and err[-1].startswith("error: process 1 ")


def ask_to_end(pid, by):
    """Signals a process until it is gone, as one presses Ctrl-C again.

    Python ignores the KeyboardInterrupt that it raises in a callback of the garbage collector, and
    JAX has one.
    """
    for _ in range(LONGEST // 5):
        try:
            os.kill(pid, by)
        except ProcessLookupError:
            return
        time.sleep(5)


def wait_for(read, run):
    """Returns what `read` does once it is something, while the run goes on."""
    deadline = time.monotonic() + LONGEST
    while run.poll() is None:
        if time.monotonic() > deadline:
            run.terminate()
        try:
            if found := read():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(run.communicate())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


def sweep(exported, workdir) -> list[str]:
    return [
        *(sys.executable, "scripts/evaluate.py"),
        f"--config={ROOT}/tests/sharding/hosts_config.py:{exported}",
        f"--workdir={workdir}",
    ]


def rows(workdir) -> list[dict]:
    """Returns the rows without what no two runs share."""
    own = {"seconds", "ms", "first_ms", "expert_ms", "ms_per_token", "expert_ms_per_token"}
    own |= {"speedup", "speedup_ci"}
    found = []
    for row in results.read(workdir):
        drop = own | ({"machine", "key"} if row["kind"] == "timing" else set())
        found.append({name: value for name, value in row.items() if name not in drop})
    return found


@pytest.fixture(scope="module")
def one_process(exported, tmp_path_factory):
    """The rows of a whole sweep by one process."""
    workdir = tmp_path_factory.mktemp("one")
    code, _, err = finish(start(*sweep(exported, workdir), devices=4))
    assert code == 0, err
    assert len(rows(workdir)) == 9
    return rows(workdir)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(exported, one_process, tmp_path):
    code, out, err = finish(start(*LAUNCH, *sweep(exported, tmp_path)))
    assert code == 0, err
    assert out == [f"[0] 9 rows measured; now run scripts/report.py --workdir={tmp_path}"]
    assert rows(tmp_path) == one_process
    lines = (tmp_path / results.FILE).read_text().splitlines()
    kinds = ("quality", "teacher_forced", "timing")
    assert [json.loads(line)["kind"] for line in lines] == [
        kind for kind in kinds for _ in range(3)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["coordinator", "worker"])
def test_a_killed_sweep_is_finished_by_a_restart(victim, exported, one_process, tmp_path):
    run = start(*LAUNCH, *sweep(exported, tmp_path))
    wait_for((tmp_path / results.FILE).read_text, run)
    os.kill(child(run.pid, f"--process_id={victim}"), signal.SIGKILL)
    began = time.monotonic()
    code, _, err = finish(run)
    assert code != 0 and time.monotonic() - began < 120
    check_death(run, victim, err)
    before = rows(tmp_path)
    assert 0 < len(before) < 6
    code, _, err = finish(start(*LAUNCH, *sweep(exported, tmp_path)))
    assert code == 0, err
    assert rows(tmp_path)[: len(before)] == before

    def order(row):
        return row["kind"], row["method"], json.dumps(row["knobs"])

    assert sorted(rows(tmp_path), key=order) == sorted(one_process, key=order)


def child(parent: int, argument: str) -> int:
    """Returns the id of the child process that was given an argument."""
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            given = (path / "cmdline").read_text().split("\0")
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == parent and argument in given:
            return int(path.name)
    raise AssertionError(f"no child of {parent} was given {argument}")
