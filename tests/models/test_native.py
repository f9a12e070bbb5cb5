"""Products by compiled code: the same numbers as XLA's, for any few rows, in a whole decoding.

In a process of its own: what is loaded stays loaded.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from speccascade.errors import UserError
from speccascade.runtime import native
from speccascade.workdir import user_cache

PROGRAM = pathlib.Path(__file__).with_name("native_program.py")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the library is kept, for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


def run(name, cache):
    env = os.environ | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": os.getcwd()}
    env.pop("XLA_FLAGS", None)  # one device
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not any(map(shutil.which, native._COMPILERS)), reason="needs a C++ compiler")
def test_products_and_decoding(cache):
    assert run("all", cache) == "products agree\nrows agree\nmodels agree\n"
    (kept,) = (cache / "speccascade" / "native").iterdir()  # nothing half made beside it
    assert kept.suffix == ".so"


@pytest.mark.parametrize(
    ("compiler", "words"),
    [
        ("no-such-compiler", "cannot run no-such-compiler"),
        ("false", "false failed"),
        ("true", "what true made cannot be loaded"),
        ("'g++", "CXX='g\\+\\+ is no command"),
    ],
)
@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_compiler_that_does_not_work_is_one_line(compiler, words, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(user_cache, "folder", lambda name: tmp_path / folder)  # one not writable
    with pytest.raises(UserError, match=f"{words}.*; name another compiler") as error:
        native.enable()
    assert "\n" not in str(error.value) and not [*tmp_path.iterdir()]


def test_no_compiler_is_one_line(monkeypatch):
    monkeypatch.setenv("CXX", " ")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="need a C\\+\\+ compiler; install g\\+\\+"):
        native._compiler()
