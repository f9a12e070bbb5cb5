"""What a mistyped command says: one line, before anything heavy is imported."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Runs scripts as commands of their own, each in a fork of a process that has imported what all of
# them import first; prints, for each, its exit status and what it said.
FORKS = """
import gc, json, os, runpy, sys, tempfile
import jax
from ml_collections import config_flags
from speccascade.runtime import app

gc.freeze()  # or every fork copies all of it when it ends
for command in map(json.loads, sys.stdin):
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if not pid:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)  # what it prints is none of this process's answers
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        print(json.dumps([status, said.read()]), flush=True)
"""


@pytest.fixture(scope="module")
def run():
    """Returns a function from a script and its arguments to exit status and standard error."""
    command, pipe = [sys.executable, "-Wignore:os.fork", "-c", FORKS], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:

        def ask(*command):
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cinfig=x"], ["cinfig", "Did you mean: config"]),
        (["--config=configs/quickstart.py"], ["give --workdir=..."]),
        (["--config=configs/nowhere.py", "--workdir=w"], ["configs/nowhere.py", "no such file"]),
        (["--config=configs/nowhere.py", "--workdir=w", "--config.x=1"], ["no such file"]),
        (["--config=configs/quickstart.py:what", "--workdir=w"], ["quickstart.py:what"]),
        (
            ["--config=configs/gsm_symbolic.py:what", "--workdir=w"],
            ["what", "expert, middle or drafter"],
        ),
        (["--config=configs/quickstart.py", "--workdir=w", "--config.tas=1"], ["mean task?"]),
        (
            ["--config=configs/gsm_symbolic.py", "--workdir=w", "--config.train.ema_decai=0.9"],
            ["train has no field 'ema_decai'", "did you mean train.ema_decay?"],
        ),
        (
            ["--config=configs/quickstart.py", "--workdir=w", "--config.mesh.width=2"],
            ["mesh has no field 'width'; it may have data, drafter, fsdp, model"],
        ),
        (
            ["--config=configs/word_problems.py", "--workdir=w", "--config.benchmark.trials=few"],
            ["benchmark.trials=few"],
        ),
        (
            ["--config=configs/quickstart.py", "--workdir=w", "--config.pair.drafter=DIR"],
            ["give these two", "leave out drafter"],
        ),
        (
            ["--config=configs/quickstart.py", "--workdir=w", "--config.evaluate.batch_size.x=3"],
            ["evaluate.batch_size is of type int", "no field 'x'"],
        ),
        (["--config=configs/quickstart.py", "--workdir=w", "more"], ["unexpected argument 'more'"]),
    ],
)
def test_mistyped_commands_get_one_line(run, arguments, words):
    status, said = run("scripts/evaluate.py", "--dry_run", *arguments)
    assert status == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=v", "--html"], "--html and --brief take one --workdir"),
        (["--brief", "--answers", "--left=a", "--right=b"], "and no --answers"),
        (["--left=a"], "--left and --right need --answers"),
    ],
)
def test_flags_of_a_report_that_do_not_go_together(run, arguments, words):
    status, said = run("scripts/report.py", "--workdir=w", *arguments)
    assert status == 2 and said.count("\n") == 1
    assert said.startswith("error: ") and words in said


def test_a_broken_config_file_keeps_its_traceback(tmp_path):
    config = tmp_path / "broken.py"
    config.write_text("def get_config():\n    return [].missing\n")
    done = subprocess.run(
        [sys.executable, "scripts/evaluate.py", f"--config={config}", "--workdir=w"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "broken.py" in done.stderr and "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (
            'OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/table.csv")',
            "runs/table.csv could not be written: No space left on device",
        ),
        (
            'OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "a_file/wrong")',
            "a_file/wrong cannot be read or written: Not a directory; give another path",
        ),
    ],
)
def test_a_full_disk_and_a_path_of_another_kind_are_one_line(raised, told):
    program = f"""
import errno, os
from speccascade.runtime import app

def main(argv):
    raise {raised}

app.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {told}\n"
