"""The scripts for Cloud TPU: what they would run, and what they do with a fake gcloud."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "scripts" / "tpu"
NAMES = ("create", "setup", "run", "logs", "copy", "delete")
SETTINGS = {
    "TPU_PROJECT": "my-project",
    "TPU_ZONE": "us-central1-a",
    "TPU_BUCKET": "gs://my-bucket",
    "TPU_TYPE": "v6e-16",
    "TPU_NAME": "table-1",
}
SHELL = sorted([*(ROOT / "scripts").rglob("*.sh"), ROOT / ".ci" / "run"])
WHERE = ["--project=my-project", "--zone=us-central1-a"]
ARGUMENTS = {"run": ["python", "x.py"], "copy": ["gemma"]}

# Logs its arguments. States are read line by line from a file, and an ssh command is run here.
GCLOUD = """#!/bin/bash
printf '%q ' "$@" >>"$FAKE/log"
echo >>"$FAKE/log"
for argument in "$@"; do
  case $argument in
    describe) head -n 1 "$FAKE/states" && sed -i 1d "$FAKE/states" ;;
    --command=*) cd "$FAKE/home" && bash -c "${argument#--command=}" || exit ;;
  esac
done
"""


@pytest.fixture
def fake(tmp_path):
    """Returns a folder with a fake gcloud and a sleep that does not, for the front of the PATH."""
    for name, text in (("gcloud", GCLOUD), ("sleep", "#!/bin/bash\n")):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "home").mkdir()
    (tmp_path / "states").write_text("")
    return tmp_path


def script(name, *arguments, fake=None, **env):
    """Runs a script; a setting of None is unset."""
    merged = {k: v for k, v in os.environ.items() if not k.startswith("TPU_")} | SETTINGS | env
    if fake is not None:
        merged |= {"FAKE": str(fake), "PATH": f"{fake / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", str(FOLDER / f"{name}.sh"), *arguments],
        env={k: v for k, v in merged.items() if v is not None},
        capture_output=True,
        text=True,
    )


def shown(name, *arguments, **env):
    """Returns the commands that a dry run shows."""
    # Without a PATH to gcloud: a dry run must not need it.
    done = script(name, "--dry_run", *arguments, **env)
    assert done.returncode == 0, done
    return [_words(line) for line in done.stdout.splitlines()]


def _words(line):
    """Splits a command as bash does, which knows `$'...'`."""
    code = 'eval "set -- $1"; printf "%s\\0" "$@"'
    done = subprocess.run(["bash", "-c", code, "-", line], capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


def fails(done, *words):
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shellcheck(path):
    places = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=places)
    if shellcheck is None:
        pytest.skip("needs shellcheck; pip install -r requirements-dev.txt")
    done = subprocess.run([shellcheck, "-x", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_help_needs_no_settings(name):
    done = script(name, "--help", **dict.fromkeys(SETTINGS))
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: bash scripts/tpu/{name}.sh [--dry_run]")


def test_create():
    asked = ["gcloud", "compute", "tpus", "queued-resources", "create", "table-1"]
    asked += ["--node-id=table-1", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e"]
    create, describe = shown("create")
    assert create == [*asked, "--spot", *WHERE]
    assert describe[:6] == [*asked[:4], "describe", "table-1"]
    assert shown("create", TPU_SPOT="0")[0] == [*asked, *WHERE]


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-32", "v2-alpha-tpuv5"),
        ("v4-32", "tpu-ubuntu2204-base"),
    ],
)
def test_every_type_has_its_image(kind, runtime):
    assert f"--runtime-version={runtime}" in shown("create", TPU_TYPE=kind)[0]
    mine = shown("create", TPU_TYPE=kind, TPU_RUNTIME="mine")[0]
    assert "--runtime-version=mine" in mine


def test_setup():
    archive, copy, ssh = shown("setup")
    assert archive[:3] == ["git", "archive", "--format=tar.gz"] and archive[-1] == "HEAD"
    file = archive[3].removeprefix("--output=")
    code = "gs://my-bucket/code/speccascade.tar.gz"
    assert copy == ["gcloud", "storage", "cp", file, code, "--project=my-project"]
    assert ssh[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "table-1"]
    assert ssh[6] == "--worker=all" and ssh[8:] == WHERE
    command = ssh[7].removeprefix("--command=")
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    assert f"gcloud storage cat {code} | tar -xz" in command
    for name in command.split("setup_venv ")[1].split("\n")[0].split():
        assert name in ("requirements-tpu.txt", *(p.name for p in ROOT.glob("requirements*.txt")))


def test_logs_copy_and_delete():
    tail = "--command=tail -n 100 -F speccascade/runs/run.log"
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "table-1"]
    assert shown("logs") == [[*ssh, "--worker=0", tail, *WHERE]]
    assert shown("logs", "3") == [[*ssh, "--worker=3", tail, *WHERE]]
    sync = ["gcloud", "storage", "rsync", "--recursive", "gs://my-bucket/runs/gemma"]
    made = ["mkdir", "-p", "runs/gemma"]
    assert shown("copy", "gemma") == [made, [*sync, "runs/gemma", "--project=my-project"]]
    delete = ["gcloud", "compute", "tpus", "queued-resources", "delete", "table-1"]
    assert shown("delete") == [[*delete, "--force", "--quiet", *WHERE]]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("TPU_PROJECT", None),
        ("TPU_ZONE", "us-central1"),
        ("TPU_BUCKET", "my-bucket"),
        ("TPU_BUCKET", "gs://my-bucket/"),
        ("TPU_TYPE", "h100-8"),
        ("TPU_NAME", "Table"),
        ("TPU_NAME", "x; rm -rf ."),
        ("TPU_SPOT", "yes"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_settings_are_checked_first(name, setting, value):
    done = script(name, "--dry_run", *ARGUMENTS.get(name, []), **{setting: value})
    fails(done, f"{setting}='{value or ''}' must be ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("create", ["now"], "unexpected argument 'now'"),
        ("create", ["--fast"], "unknown flag '--fast'"),
        ("delete", ["other"], "unexpected argument 'other'"),
        ("run", [], "no command was given"),
        ("logs", ["all"], "worker 'all' must be a number"),
        ("logs", ["0", "1"], "unexpected argument '1'"),
        ("copy", [], "NAME='' must be"),
        ("copy", ["../x"], "NAME='../x' must be"),
    ],
)
def test_bad_arguments(name, arguments, word):
    fails(script(name, "--dry_run", *arguments), word)
    if "--fast" not in arguments:
        fails(script(name, "--dry_run", "--", *arguments), word)


def test_without_gcloud(tmp_path):
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    fails(script("delete", PATH=str(tmp_path)), "gcloud is not installed")


def calls(fake):
    """Returns what gcloud was asked of queued resources."""
    log = (fake / "log").read_text().splitlines()
    return [shlex.split(line)[3] for line in log if "queued-resources" in line]


@pytest.mark.parametrize(
    ("states", "asked"),
    [
        (["", "WAITING_FOR_RESOURCES", "ACTIVE"], ["create"]),
        (["PROVISIONING", "ACTIVE"], []),
        (["ACTIVE", "ACTIVE"], []),
        (["SUSPENDED", "ACCEPTED", "ACTIVE"], ["delete", "create"]),
        (["FAILED", "ACTIVE"], ["delete", "create"]),
    ],
)
def test_create_waits_and_replaces_what_was_taken_away(fake, states, asked):
    (fake / "states").write_text("".join(f"{state}\n" for state in states))
    done = script("create", fake=fake)
    assert done.returncode == 0, done
    assert [call for call in calls(fake) if call != "describe"] == asked
    assert calls(fake).count("describe") == len(states)
    assert done.stdout.splitlines()[-1].endswith("table-1 is ACTIVE")


def test_create_says_where_it_failed(fake):
    (fake / "states").write_text("\nWAITING_FOR_RESOURCES\nFAILED\n")
    fails(script("create", fake=fake), "table-1 did not come")


def log_when(fake, word):
    """Waits until the run's log has a word, and returns the log."""
    log = fake / "home/speccascade/runs/run.log"
    for _ in range(200):
        if log.exists() and word in log.read_text():
            return log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{word} is not in {log.read_text()!r}")


def test_run_starts_a_command_with_its_environment_and_returns(fake):
    place = fake / "home/speccascade/.venv/current/bin"
    place.mkdir(parents=True)
    command = place / "show"
    command.write_text('#!/bin/bash\npwd\nprintf "<%s>" "$@"\nread -r _ <"$FAKE/gate"\nexit 3\n')
    command.chmod(0o755)
    os.mkfifo(fake / "gate")
    arguments = ["a b", "it's", '"$HOME"', "--config=x.py:y", "*"]
    done = script("run", "show", *arguments, fake=fake)
    assert done.returncode == 0, done
    expected = f"{fake}/home/speccascade\n" + "".join(f"<{a}>" for a in arguments)
    assert log_when(fake, "<*>") == expected
    fails(script("run", "show", fake=fake), "a command is running on")
    (fake / "gate").write_text("\n")
    assert log_when(fake, "exit status") == expected + "exit status 3\n"


def test_run_before_setup(fake):
    (fake / "home/speccascade").mkdir()
    fails(script("run", "show", fake=fake), "run scripts/tpu/setup.sh first")
