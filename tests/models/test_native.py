"""Products by compiled code: the same numbers as XLA's, for any few rows, in a whole decoding.

In a process of its own: what is loaded stays loaded.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from speccascade.errors import UserError
from speccascade.runtime import native

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
    [("no-such-compiler", "cannot run no-such-compiler"), ("false", "false failed")],
)
def test_a_compiler_that_does_not_work_is_one_line(compiler, words, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(UserError, match=words) as error:
        native._target(native._compiler())
    assert "\n" not in str(error.value)


def test_no_compiler_is_one_line(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="need a C\\+\\+ compiler; install g\\+\\+"):
        native._compiler()
