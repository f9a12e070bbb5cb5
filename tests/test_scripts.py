"""The shell scripts: what they say, which Python they take, when they install, what is pinned."""

import ast
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import types

import pytest

from speccascade import learned_head, pairs

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = [
    "scripts/quickstart.sh",
    "scripts/test.sh",
    "scripts/train_pair.sh",
    "scripts/setup.sh",
    ".ci/run",
]

# An interpreter that logs its calls, is of the version asked for, and makes and fills environments
# without doing either.
FAKE = """#!/bin/bash
echo "$*" >>{log}
case "$1 $2" in
  "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
  "-m pip") exit {pip_status} ;;
  *) exec {real} -c 'import sys; sys.version_info = {version}; exec(sys.argv[1])' "$2" ;;
esac
"""


@pytest.fixture
def tree(tmp_path):
    """Returns a folder with the scripts and small requirement files."""
    for name in (*SCRIPTS, "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake(folder, name="python3", version=(3, 12, 1), pip_status=0):
    """Writes a `FAKE` interpreter and returns its path."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    real, log = sys.executable, folder / "log"
    path.write_text(FAKE.format(log=log, real=real, version=version, pip_status=pip_status))
    path.chmod(0o755)
    return path


def bash(*arguments, cwd=ROOT, **env):
    """Runs bash and returns the finished process; a variable of None is unset.

    What steers the scripts is unset unless given: under `.ci/run` these tests would otherwise fill
    the environments that it tests in.
    """
    merged = {**os.environ, **dict.fromkeys(("PYTHON", "SPECCASCADE_VENVS", "CI_MINUTES")), **env}
    merged = {k: v for k, v in merged.items() if v is not None}
    return subprocess.run(
        ["bash", *map(str, arguments)], cwd=cwd, env=merged, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_parses(name):
    assert bash("-n", name).returncode == 0


@pytest.mark.parametrize("name", ["quickstart", "test"])
def test_help_installs_nothing(name, tree):
    done = bash(f"scripts/{name}.sh", "--help", cwd=tree)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: bash scripts/{name}.sh")
    assert not (tree / ".venv").exists()


def fails(done, *words):
    """Asserts one line on standard error with these words, and exit code 2."""
    assert done.returncode == 2, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_unexpected_argument():
    fails(bash("scripts/quickstart.sh", "fast"), "fast", "--help")


@pytest.mark.parametrize("name", ["quickstart", "test"])
def test_python_too_old(name, tree):
    python = fake(tree / "bin", version=(3, 10, 4))
    fails(bash(f"scripts/{name}.sh", cwd=tree, PYTHON=str(python)), "3.10", "3.11 or newer")


def test_python_that_is_not_there(tree):
    fails(bash("scripts/test.sh", cwd=tree, PYTHON="/nowhere/python"), "/nowhere/python")


def found(tree, path, **env):
    command = "source scripts/setup.sh; find_python"
    env = {"PYENV_ROOT": str(tree / "pyenv"), "PATH": f"{path}:{os.environ['PATH']}", **env}
    return bash("-c", command, cwd=tree, **env)


def old(tree):
    """Puts versions that are of no use in front of whatever this machine has."""
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 20))):
        fake(tree / "bin", name, version=(3, 8, 0))


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ((11, 12, 13, 14), 12),  # what the pins are tested on
        ((11, 13, 14), 13),
        ((11, 14), 14),
        ((11, 19), 11),
    ],
)
def test_takes_the_tested_version_then_newer_ones_then_the_slow_one(tree, there, taken):
    old(tree)
    for minor in there:
        fake(tree / "bin", f"python3.{minor}", version=(3, minor, 0))
    assert found(tree, tree / "bin").stdout == f"python3.{taken}\n"


@pytest.mark.parametrize("minor", [11, 12, 19])
def test_takes_python3_where_it_has_no_other_name(tree, minor):
    old(tree)
    fake(tree / "bin", version=(3, minor, 0))
    assert found(tree, tree / "bin").stdout == "python3\n"


def test_python_decides_whatever_there_is(tree):
    fake(tree / "bin", "python3.12")
    python = fake(tree / "own", "python", version=(3, 11, 0))
    assert found(tree, tree / "bin", PYTHON=str(python)).stdout == f"{python}\n"


@pytest.mark.parametrize(
    ("version", "given", "reason", "slow"),
    [
        ("3.12", "", "tested", False),
        ("3.11", "", "there is no 3.12 or newer", True),
        ("3.13", "/a/python", "PYTHON says so", False),
        ("3.11", "/a/python", "PYTHON says so", True),
    ],
)
def test_says_what_it_took_and_why(version, given, reason, slow):
    tell = f"source scripts/setup.sh; tell_choice /a/python {version}"
    done = bash("-c", tell, PYTHON=given or None)
    assert done.stdout.startswith(f"Using /a/python (Python {version}): ")
    assert done.stdout.count("\n") == 1 and reason in done.stdout
    assert ("bfloat16 takes about twice as long" in done.stdout) == slow


def test_takes_what_pyenv_keeps(tree):
    old(tree)
    kept = tree / "pyenv/versions/3.13.2"
    kept.mkdir(parents=True)
    python = fake(kept / "bin", "python3.13", version=(3, 13, 2))
    assert found(tree, tree / "bin").stdout == f"{python}\n"


def test_no_python_at_all(tree):
    old(tree)
    fails(found(tree, tree / "bin"), "no usable Python 3.11 or newer", "PYTHON=")


def test_installs_once_and_again_when_the_pins_change(tree):
    python = fake(tree / "bin")
    log = tree / "bin/log"

    def installs():
        log.write_text("")
        setup = "source scripts/setup.sh; setup_venv requirements.txt requirements-dev.txt"
        done = bash("-c", f"set -euo pipefail; {setup}", cwd=tree, PYTHON=str(python))
        assert done.returncode == 0, done
        assert f"Using {python} (Python 3.12): PYTHON says so\n" in done.stdout
        return [line for line in log.read_text().splitlines() if "pip install" in line]

    first = installs()
    assert len(first) == 2 and first[0].endswith("-r requirements-dev.txt")
    assert (tree / ".venv/py3.12/bin/python").exists()
    assert installs() == []
    with open(tree / "requirements.txt", "a") as file:
        file.write("another==1.0\n")
    assert installs() == first


def test_failed_install_is_tried_again(tree):
    python = fake(tree / "bin", pip_status=1)
    for _ in range(2):
        done = bash("scripts/test.sh", cwd=tree, PYTHON=str(python))
        fails(done, "pip could not install requirements-dev.txt")


@pytest.mark.parametrize("failing", [None, "slow", "mypy", "pip", "mkdocs", "pytest", "ruff"])
def test_ci_fails_if_anything_fails(tree, failing):
    (tree / "scripts/test.sh").write_text(
        f"""bin="$SPECCASCADE_VENVS/$(basename "$PYTHON")/bin" && mkdir -p "$bin"
        echo '[ {failing} != ruff ]' >"$bin/ruff" && chmod +x "$bin/ruff"
        echo 'echo "$(basename "$(dirname "$(dirname "$0")")") $*" >>log
        [ "$2" != {failing} ]' >"$bin/python" && chmod +x "$bin/python"
        echo "$PYTHON [$*]" >>log
        [ "$1 $2" != "-m {failing}" ]"""
    )
    for minor in (11, 12, 13):
        fake(tree / "bin", f"python3.{minor}", version=(3, minor, 0))
    path = f"{tree / 'bin'}:{os.environ['PATH']}"
    done = bash(".ci/run", cwd=tree, PATH=path)
    assert done.returncode == int(failing is not None)
    *runs, types, for_site, site, for_tpu, plans, without, slow = (
        (tree / "log").read_text().splitlines()
    )
    assert runs == ["python3.11 []", "python3.12 []"]
    assert types == "python3.12 -m mypy"
    assert for_site.startswith("python3.12 -m pip install") and "requirements-docs.txt" in for_site
    assert site.startswith("python3.12 -m mkdocs build")
    assert for_tpu.startswith("python3.12 -m pip install") and "requirements-tpu.txt" in for_tpu
    assert plans.startswith("python3.12 -m pytest tests/plan")
    assert without.startswith("python3.12 -m pip uninstall") and without.endswith("libtpu")
    left = int(re.fullmatch(r"python3.12 \[-m slow --seconds=(\d+)\]", slow).group(1))
    assert 70 * 60 - 100 < left <= 70 * 60  # less what the rest took


def test_the_minutes_of_ci_are_a_whole_number(tree):
    fails(bash(".ci/run", cwd=tree, CI_MINUTES="7.5"), "CI_MINUTES=7.5 must be a whole number")


def test_what_would_begin_too_late_is_skipped(request):
    loaded = {getattr(p, "__file__", None): p for p in request.config.pluginmanager.get_plugins()}
    setup = loaded[str(ROOT / "tests/conftest.py")].pytest_runtest_setup

    def item(seconds):
        option = types.SimpleNamespace(seconds=seconds)
        return types.SimpleNamespace(config=types.SimpleNamespace(option=option))

    setup(item(float("inf")))
    with pytest.raises(pytest.skip.Exception, match="no time was left"):
        setup(item(0))


def pinned(name):
    """Returns the names that a requirement file pins, each of them exactly."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("-r ")]
    assert all("==" in line for line in lines)
    return {line.split("==")[0].lower() for line in lines}


def imported(paths):
    """Returns the names of the packages that files import, this one's and Python's own left out."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"speccascade"}


def test_everything_imported_is_pinned():
    # These alone have packages of their own.
    peer = ROOT / "speccascade/benchmark/hugging_face.py"
    harness = {ROOT / "speccascade/lm_eval" / name for name in ("model.py", "__main__.py")}
    files = set((ROOT / "speccascade").rglob("*.py")) - {peer} - harness
    distributions = importlib.metadata.packages_distributions()
    pins = pinned("requirements.txt")
    for name in imported(files):
        owners = {re.sub("[-_.]+", "-", owner).lower() for owner in distributions[name]}
        assert owners & pins, f"{name} is imported and not in requirements.txt"
    own = pinned("requirements-peers.txt")
    assert own == {"torch", "transformers"}
    assert imported([peer]) <= pins | own
    assert imported(harness) == pinned("requirements-lm-eval.txt")


def test_pyproject_depends_on_what_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split("[<>=]", line)[0].lower() for line in project["dependencies"]}
    assert names | {"jaxlib"} == pinned("requirements.txt")


TINY_PAIR = """
from tests.training import tiny

def get_config(role="expert"):
    config = tiny.get_config()
    config.task.validation_size = 40
    config.train.update(num_steps=2, checkpoint_every=2)
    config.model.d_ff = {"expert": 16, "drafter": 8}[role]
    config.evaluate = {"splits": {"validation": 10}}
    config.pair = "unused"
    return config
"""


def test_train_pair_says_how_it_is_used():
    done = bash("scripts/train_pair.sh", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: bash scripts/train_pair.sh")
    fails(bash("scripts/train_pair.sh", "configs/debian_en_de.py"), "usage")


@pytest.mark.slow
def test_train_pair_leaves_a_pair_and_its_head(tmp_path):
    config = tmp_path / "small.py"
    config.write_text(TINY_PAIR)
    out = tmp_path / "out"
    done = bash(
        "scripts/train_pair.sh",
        str(config),
        str(out),
        "--rounded",
        PYTHON=sys.executable,
        PYTHONPATH=str(ROOT),
    )
    assert done.returncode == 0, done.stderr
    pair = pairs.load(str(out / "pair"))
    assert pair.name == "small" and pair.drafter.config.d_ff == 8
    notes = json.loads((out / "pair/pair.json").read_text())["training"]
    assert notes["drafter"]["config"]["train"]["distill_from"] == "expert"
    assert learned_head.notes(str(out / "pair/head.json"))["first"] == 10
