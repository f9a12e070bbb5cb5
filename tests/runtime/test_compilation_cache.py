"""What is compiled stays in the user's cache folder, in a process of its own."""

import os
import subprocess
import sys

PROGRAM = """
from speccascade.runtime import compilation_cache
compilation_cache.enable()
import jax
print(jax.jit(lambda x: x + 1)(1))
"""


def run(**env):
    """Runs a process that enables the cache and compiles something."""
    merged = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | env
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=merged, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2\n"


def test_programs_are_kept(tmp_path):
    run(XDG_CACHE_HOME=str(tmp_path))
    kept = tmp_path / "speccascade" / "jax"
    before = {path.name for path in kept.iterdir()}
    assert before
    run(XDG_CACHE_HOME=str(tmp_path))
    assert {path.name for path in kept.iterdir()} == before


def test_own_folder_of_jax(tmp_path):
    run(XDG_CACHE_HOME=str(tmp_path / "unused"), JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"))
    assert list((tmp_path / "own").iterdir()) and not (tmp_path / "unused").exists()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    run(XDG_CACHE_HOME=str(tmp_path / "file"))
