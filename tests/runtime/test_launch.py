"""The launcher on processes that need no JAX."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from speccascade.errors import UserError
from speccascade.runtime import launch

ID = "int(sys.argv[-1].split('=')[1])"


def python(code, num_processes=2):
    launch.launch([sys.executable, "-c", f"import os, sys, time\n{code}"], num_processes)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(launch, "GRACE", 1.0)
    monkeypatch.setattr(launch, "LAST_GRACE", 1.0)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_every_process_is_told_its_place_and_prefixed(capfdbinary):
    python("print(*sys.argv[1:]); print('a\\rb\\n\\nlast', end='', file=sys.stderr)", 3)
    out, err = capfdbinary.readouterr()
    lines = sorted(out.decode().splitlines())
    address = lines[0].split()[2]
    assert lines == [
        f"[{i}] --distributed {address} --num_processes=3 --process_id={i}" for i in range(3)
    ]
    assert address.startswith("--coordinator=localhost:")
    assert sorted(err.decode().split("\n")) == sorted(
        ["", *(f"[{i}] {line}" for i in range(3) for line in ("a", "b", "last"))]
    )


def test_the_first_to_fail_is_named_and_the_rest_is_stopped():
    code = f"i = {ID}\nif i == 1: sys.exit(3)\ntime.sleep(60)"
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        python(code, 3)
    assert str(caught.value) == (
        "process 1 ended with exit code 3, stopped 0, 2; start again to go on"
    )
    assert time.monotonic() - began < 30


def test_one_that_ignores_the_end_is_killed():
    code = f"""
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if {ID} == 0: os.kill(os.getpid(), signal.SIGSEGV)
time.sleep(60)
"""
    began = time.monotonic()
    with pytest.raises(UserError, match="^process 0 was killed by SIGSEGV, stopped 1; start again"):
        python(code)
    assert time.monotonic() - began < 30


def test_the_others_may_say_what_they_have_to():
    code = f"time.sleep(0.3 * {ID}); sys.exit('bad' if {ID} else 2)"
    with pytest.raises(UserError, match="^process 0 ended with exit code 2; see above$"):
        python(code)


def test_a_stopped_launcher_leaves_nobody(tmp_path):
    code = f"import os, time; open(r'{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "scripts/launch.py", "--processes=1", "--", sys.executable, "-c"]
    root = pathlib.Path(__file__).parents[2]
    run = subprocess.Popen([*command, code], cwd=root, env={**os.environ, "PYTHONPATH": root})
    while not (path := tmp_path / "pid").exists() or not path.read_text():
        assert run.poll() is None
        time.sleep(0.05)
    run.terminate()
    assert run.wait() == 128 + signal.SIGTERM
    assert not os.path.exists(f"/proc/{path.read_text()}")


def test_what_cannot_be_run_is_refused():
    with pytest.raises(UserError, match="give a command"):
        launch.launch([], 2)
    with pytest.raises(UserError, match="cannot run nowhere-at-all: No such file"):
        launch.launch(["nowhere-at-all"], 2)
