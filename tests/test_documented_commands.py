"""Every command of README, docs, scripts and configs is one that its script takes.

Nothing is decoded: flags are parsed and configs read. What is marked quick is run, slowly.
"""

import ast
import contextlib
import io
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest
from absl import flags

from speccascade.lm_eval import arguments
from speccascade.runtime import app
from tests import documents
from tests.documents import ROOT

# Commands of others, and what a shell does by itself.
OTHERS = re.compile(r"(source|export|gcloud|[A-Z_]+=\S*)$")


@pytest.fixture(autouse=True)
def _flags_of_their_own(monkeypatch):
    """Every script defines its flags as if it were alone; a config's flag reads sys.argv."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(ROOT)
    kept = dict(flags.FLAGS.__dict__)
    yield
    flags.FLAGS.__dict__.clear()
    flags.FLAGS.__dict__.update(kept)


def parse(script: str, given: list[str]) -> None:
    """Parses a script's flags as it would; AssertionError with its own words where it refuses."""
    assert (ROOT / script).is_file(), f"there is no {script}"
    flags.FLAGS.__dict__.clear()
    flags.FLAGS.__dict__.update(flags.FlagValues().__dict__)
    runpy.run_path(script, run_name="parsed")
    sys.argv[:] = [script, *map(_filled, given)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            rest = app._parse(list(sys.argv))
    except SystemExit:
        raise AssertionError(said.getvalue()) from None
    assert rest == [script], f"unexpected argument {rest[1]!r}"


def _filled(word: str) -> str:
    """Returns an argument with something in the place of what its reader is to fill in."""
    word = re.sub(r"=(configs/)?CONFIG\.py", "=configs/quickstart.py", word)
    return re.sub(r"=X$", "=1", word.strip("[]"))


def _typed(value: str) -> int | float | str:
    """Returns a value of `--model_args` as the library hands it over."""
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value


def check(words: list[str]) -> None:
    """Asserts that a command is there and takes what it is given."""
    first, *rest = words
    while rest and "=" in first and first.partition("=")[0].isupper():  # VARIABLE=value COMMAND
        first, *rest = rest
    if first == "python" and rest[0] == "-m":
        assert rest[1] in ("speccascade", "speccascade.lm_eval", "pytest", "pip"), rest[1]
        if rest[1] == "speccascade.lm_eval" and "--model_args" in rest:
            given = rest[rest.index("--model_args") + 1]
            if given != "pair=...":
                parts = (item.split("=", 1) for item in given.split(","))
                arguments.read({name: _typed(value) for name, value in parts})
        if rest[1] == "speccascade" and rest[2:] and rest[2] != "NAME":
            check(["speccascade", *rest[2:]])
    elif first == "python" and rest[0] == "scripts/launch.py" and "--" in rest:
        at = rest.index("--")
        parse(rest[0], rest[1:at])
        check(rest[at + 1 :])
    elif first == "python" and rest[0].startswith("scripts/"):
        if "..." not in rest:  # the rest is elsewhere
            parse(rest[0], rest[1:])
    elif first == "python":
        # What an earlier command writes, or what draws the pages' figures.
        assert rest[0].startswith("runs/") or (ROOT / rest[0]).is_file(), rest[0]
    elif first == "speccascade":
        if rest[0].islower():
            parse(f"scripts/{rest[0]}.py", rest[1:])
    elif first == "bash":
        assert rest[0] in (".ci/run", "-n") or (ROOT / rest[0]).is_file(), f"there is no {rest[0]}"
        if rest[0] == "scripts/tpu/run.sh" and rest[1:] and rest[1] == "python":
            check(rest[1:])
        for word in rest[1:]:
            if word.startswith("configs/"):
                assert (ROOT / word.partition(":")[0]).is_file(), f"there is no {word}"
    elif first == "pip":
        files = [name for option, name in zip(rest, rest[1:], strict=False) if option == "-r"]
        for name in files:
            assert (ROOT / name).is_file(), f"there is no {name}"
    else:
        assert OTHERS.match(first), f"nobody knows {first}"


def test_every_command_is_taken():
    found = list(documents.commands())
    wrong = []
    for command in found:
        try:
            check(list(command.words))
        except Exception as error:
            wrong.append(f"{command.where}: {' '.join(command.words)}\n    {error}")
    assert not wrong, "\n".join(wrong)
    # README, the pages, the table of commands, docstrings: that they are found at all.
    places = {command.where.partition(":")[0] for command in found}
    assert {"README.md", "docs/commands.md", "docs/certify.md", "configs/quickstart.py"} <= places


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python scripts/evaluated.py --workdir=w", "there is no scripts/evaluated.py"),
        ("python scripts/evaluate.py --workdir=w --config=configs/quick.py", "no such file"),
        ("python scripts/evaluate.py --workdr=w --config=configs/quickstart.py", "workdr"),
        ("python scripts/evaluate.py --config=configs/quickstart.py", "give --workdir="),
        ("python scripts/train.py --workdir=w --config=configs/smollm2.py --config.q.seed=1", "q"),
        ("python scripts/report.py runs/w --workdir=runs/w", "unexpected argument 'runs/w'"),
        ("python -m speccascade.lm_eval --model_args pair=P,rule=token_v4", "token_v4"),
        ("pip install -r requirements-none.txt", "there is no requirements-none.txt"),
        ("bash scripts/tpu/run.sh python scripts/evaluate.py --nothing", "nothing"),
        ("speccascade evaluate --workdir=w", "give --config="),
        ("evaluate --workdir=w", "nobody knows evaluate"),
    ],
)
def test_what_is_wrong_is_noticed(command, words):
    with pytest.raises(Exception, match=re.escape(words)):
        check(command.split())


def test_python_is_python():
    for fence in documents.fences():
        if fence.language == "python":
            compile(fence.text, fence.where, "exec")


@pytest.mark.slow
def test_the_readmes_python_prints_what_it_says(capsys):
    of_readme = [f for f in documents.fences() if f.where.startswith("README.md")]
    at = next(i for i, fence in enumerate(of_readme) if fence.language == "python")
    exec(compile(of_readme[at].text, of_readme[at].where, "exec"), {})
    assert capsys.readouterr().out == of_readme[at + 1].text


@pytest.mark.slow
def test_what_is_marked_quick_runs(tmp_path):
    quick = [fence for fence in documents.fences() if fence.quick]
    assert {fence.where.partition(":")[0] for fence in quick} >= {"README.md"}
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    assert shutil.which("python", path=path)
    for fence in quick:
        text = re.sub(r"^source .venv.*$", "", fence.text, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{fence.where}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
