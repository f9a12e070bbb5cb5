"""The scripts by name, where there is a checkout and where a wheel has them inside the package."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from speccascade.runtime import app, command, output

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


def run(*arguments, root=ROOT, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "speccascade", *arguments],
        cwd=cwd or root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_script_has_a_name():
    listed = run("--help")
    names = [line.split()[0] for line in listed.stdout.split("\n")[2:] if line]
    assert names == SCRIPTS and listed.returncode == 0
    unknown = run("evaluated")
    assert unknown.returncode == 2 and "error: there is no command 'evaluated'" in unknown.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [[], ["evaluate", "--help"]])
def test_nobody_reads_to_the_end(arguments, unbuffered):
    command = [sys.executable, "-m", "speccascade", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, env=env, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_another_broken_pipe_is_a_defect(capfd):
    with pytest.raises(BrokenPipeError), output.may_go_unread():
        raise BrokenPipeError("a bucket's")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What a wheel has, by its own list of packages."""
    root = tmp_path_factory.mktemp("site")
    where = root / "speccascade"
    skipped = shutil.ignore_patterns("__pycache__", "shipped")
    shutil.copytree(ROOT / "speccascade", where, ignore=skipped)
    shutil.copytree(ROOT / "scripts", where / "commands", ignore=skipped)
    shutil.copytree(ROOT / "configs", where / "configs", ignore=skipped)
    return root


def test_a_wheel_needs_no_checkout(installed, tmp_path):
    done = run("evaluate", "--help", root=installed, cwd=tmp_path)
    assert "Measures a sweep" in done.stdout and "--dry_run" in done.stdout.replace("[no]", "")
    done = run(
        *("evaluate", "--config=configs/quickstart.py", "--config.pair=shipped:nothing"),
        *("--workdir=w", "--dry_run"),
        root=installed,
        cwd=tmp_path,
    )
    assert done.returncode == 2 and "no shipped pair 'nothing'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_config_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = str(ROOT / "configs/quickstart.py")
    assert app._config_file("configs/quickstart.py:64") == f"{ours}:64"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/quickstart.py").write_text("")
    assert app._config_file("configs/quickstart.py:64") == "configs/quickstart.py:64"
    assert app._config_file("other/quickstart.py") == "other/quickstart.py"
    assert command.folder("commands", "scripts") == ROOT / "scripts"
