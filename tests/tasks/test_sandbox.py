"""Programs that try to do harm. Where the isolation cannot be had there is nothing to test."""

import concurrent.futures
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from speccascade.errors import UserError
from speccascade.tasks import sandbox

LIMITS = sandbox.Limits(seconds=20.0, memory_bytes=1 << 28)

needs_isolation = pytest.mark.skipif(
    sandbox._trouble() is not None, reason=f"no isolation here: {sandbox._trouble()}"
)


@needs_isolation
@pytest.mark.parametrize(
    ("program", "passed"),
    [
        ("assert sum(range(5)) == 10", True),
        ("import math, re, json, collections, heapq, itertools; assert math.gcd(4, 6) == 2", True),
        ("import sys; assert sys.flags.hash_randomization == 0", True),
        ("assert False", False),
        ("def f(:", False),
        ("", True),
        ("print('much' * 10**6)\nimport sys; sys.stderr.write('x' * 10**6)", True),
        ("assert 'ß\\u20ac' == 'ß€'", True),
        # Coming to an end early is not passing.
        ("import sys; sys.exit(0)", False),
        ("import os; os._exit(0)", False),
        ("import os; os._exit(97)", False),
        ("import os; os.write(3, b'0' * 32)", False),
        ("import os; os.kill(os.getpid(), 9)", False),
        ("import os; os.kill(1, 9); os.kill(-1, 9)", False),
    ],
)
def test_passing_is_coming_to_the_end(program, passed):
    assert sandbox.passes(program, LIMITS) == passed


ENDLESS = (
    "while True: pass",
    "import time; time.sleep(60)",
    "import os\nwhile True: os.write(3, b'x' * 4096)",
    "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(60)",
)


@pytest.fixture(scope="module")
def ended():
    """Whether each endless program passed and the seconds it had, run at once: all wait."""

    def run(program):
        began = time.monotonic()
        return sandbox.passes(program, sandbox.Limits(seconds=1.5)), time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(len(ENDLESS)) as pool:
        return dict(zip(ENDLESS, pool.map(run, ENDLESS), strict=True))


@needs_isolation
@pytest.mark.parametrize("program", ENDLESS)
def test_time_is_up(ended, program):
    passed, seconds = ended[program]
    assert not passed and seconds < 15


def command_lines():
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


@needs_isolation
def test_nothing_outlives_the_program():
    stay = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True: time.sleep(1)\n"
    assert sandbox.passes(stay, LIMITS)
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    began = time.monotonic()
    assert sandbox.passes(thread, LIMITS) and time.monotonic() - began < 15
    assert not sandbox.passes(stay + "time.sleep(60)", sandbox.Limits(seconds=1.5))
    for _ in range(100):
        left = [c for c in command_lines() if b"\0program.py\0" in c or b"jail.py\0" in c]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(left)


@needs_isolation
def test_memory_is_limited():
    assert sandbox.passes("a = bytearray(1 << 26)", LIMITS)
    assert not sandbox.passes("a = bytearray(1 << 28)", LIMITS)
    assert not sandbox.passes("a = []\nwhile True: a.append(bytearray(1 << 20))", LIMITS)
    # Files in memory count as well, by file and together.
    write = "for i in range({}): open(str(i), 'wb').write(bytes({} << 20))"
    assert sandbox.passes(write.format(3, 4), LIMITS)
    assert not sandbox.passes(write.format(1, 17), LIMITS)
    assert not sandbox.passes(write.format(5, 4), LIMITS)
    assert not sandbox.passes("for i in range(10000): open(str(i), 'w')", LIMITS)


@needs_isolation
def test_processes_are_limited():
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    began = time.monotonic()
    assert not sandbox.passes(bomb, sandbox.Limits(seconds=2.0))
    assert time.monotonic() - began < 15
    count = (
        "import os, time\n"
        "n = 0\n"
        "try:\n"
        "    while n < 100:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        n += 1\n"
        "except OSError: pass\n"
        "assert 0 < n <= 8, n"
    )
    assert sandbox.passes(count, LIMITS)
    threads = (
        "import threading, time\n"
        "for i in range(100): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    assert not sandbox.passes(threads, LIMITS)


@needs_isolation
def test_nothing_outside_can_be_read_or_written(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    os.chmod(secret, 0o666)
    os.chmod(tmp_path, 0o777)
    for path in (secret, tmp_path / "new", "/usr/lib/new", "/etc/new", sys.base_prefix + "/new"):
        for mode in ("r", "w"):
            assert not sandbox.passes(f"open({str(path)!r}, {mode!r})", LIMITS)
        assert not sandbox.passes(f"import os; os.remove({str(path)!r})", LIMITS)
    assert secret.read_text() == "kept" and os.listdir(tmp_path) == ["secret"]
    assert not os.path.exists("/usr/lib/new") and not os.path.exists("/etc/new")
    seen = "import os; assert set(os.listdir('/')) <= {}, os.listdir('/')"
    top = {"bin", "lib", "lib32", "lib64", "usr", "etc", "dev", "tmp"}
    top.add(os.path.realpath(sys.base_prefix).split("/")[1])
    assert sandbox.passes(seen.format(top), LIMITS)
    assert sandbox.passes("import os; assert os.listdir('/dev') == ['null']", LIMITS)
    assert sandbox.passes(
        "import os; assert set(os.environ) <= {'LC_CTYPE', 'PYTHONHASHSEED'}", LIMITS
    )
    assert sandbox.passes("import os; assert os.listdir('.') == ['program.py']", LIMITS)
    assert sandbox.passes("open('mine', 'w').write('x'); assert open('mine').read() == 'x'", LIMITS)


@needs_isolation
def test_there_is_no_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        there = "import socket; socket.socket(socket.AF_UNIX).connect({!r})"
        assert not sandbox.passes(connect, LIMITS)
        assert not sandbox.passes(there.format(str(tmp_path / "socket")), LIMITS)
        # It is the program that fails and not the server.
        subprocess.run([sys.executable, "-c", connect], check=True)
        subprocess.run([sys.executable, "-c", there.format(str(tmp_path / "socket"))], check=True)
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"):
        assert not sandbox.passes(f"import socket; socket.socket(socket.{family}, 2)", LIMITS)


@needs_isolation
def test_no_further_privileges():
    refused = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.{} == -1, 'granted'\n"
        "assert ctypes.get_errno() in (1, 38)"
    )
    for call in (
        "unshare(0x10000000)",
        "unshare(0x00020000)",
        "mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "shmget(0, 1 << 20, 0o1600)",
        "syscall(319 if os.uname().machine == 'x86_64' else 279, b'm', 0)",
        "syscall(435, None, 0)",
        "chroot(b'/tmp')",
        "setuid(0)" if os.geteuid() == 0 else "unshare(0x40000000)",
    ):
        assert sandbox.passes(refused.format(call), LIMITS), call
    assert sandbox.passes("import os; assert os.getuid() == os.geteuid() == 1000", LIMITS)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_programs_are_refused_where_there_is_no_isolation():
    """In a namespace that grants no further ones."""
    code = (
        "from speccascade.tasks import sandbox\n"
        "from speccascade.errors import UserError\n"
        "try: sandbox.require()\n"
        "except UserError as error: print(error)\n"
        "try: sandbox.passes('1')\n"
        "except sandbox.Unavailable: print('did not run')\n"
    )
    none = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", none, "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, cwd=os.getcwd()
    )
    if done.returncode:
        pytest.skip(f"cannot forbid namespaces here: {done.stderr[-200:]}")
    first, second = done.stdout.splitlines()
    assert "cannot be run in isolation here (unshare" in first and second == "did not run"


def test_require_says_why(monkeypatch):
    monkeypatch.setattr(sandbox, "_trouble", lambda: "mount: Operation not permitted")
    with pytest.raises(UserError, match=r"isolation here \(mount: Operation not permitted\), so"):
        sandbox.require()
