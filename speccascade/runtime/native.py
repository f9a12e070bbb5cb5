"""Compiles `models/native.cc` for this machine, once, into the user's cache folder."""

import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile

from speccascade.errors import UserError
from speccascade.workdir import user_cache

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")
_OTHERWISE = "name another compiler by CXX, or leave out --native"
_COMPILERS = ("g++", "clang++", "c++")


def enable() -> None:
    """Has products of few rows computed by code compiled for this processor, see `models/native`.

    Call it before anything is traced. `CXX` names the compiler; without it g++, clang++ or c++ is
    used, whichever is there. What it made is kept in `$XDG_CACHE_HOME/speccascade/native`.

    Raises:
      UserError: there is no CPU backend or no compiler, or it failed.
    """
    import jax  # not at the top: `--help` should not wait for it

    from speccascade.models import native

    if jax.default_backend() != "cpu":
        raise UserError(f"native products are for CPU, and this is {jax.default_backend()}")
    if jax.device_count() > 1:
        raise UserError(
            f"native products are for one device, and there are {jax.device_count()}; leave out "
            "--native"
        )
    compiler = _compiler()
    folder = user_cache.folder("native") or pathlib.Path(tempfile.mkdtemp())
    made = folder / f"{_key(native.SOURCE, compiler, jax.ffi.include_dir())}.so"
    if not made.exists():
        _compile(compiler, native.SOURCE, jax.ffi.include_dir(), made)
    try:
        native.load(made)
    except OSError as error:
        raise UserError(f"{made} cannot be loaded ({error}); remove it") from None


def _compiler() -> list[str]:
    if named := os.environ.get("CXX"):
        return shlex.split(named)
    for name in _COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise UserError(
        "native products need a C++ compiler; install g++ or clang++, name one by CXX, or leave "
        "out --native"
    )


def _key(source: pathlib.Path, compiler: list[str], include: str) -> str:
    """Returns a hash of what the library depends on: the processor's own instructions too."""
    header = pathlib.Path(include) / "xla" / "ffi" / "api" / "c_api.h"
    parts = (source.read_bytes(), header.read_bytes(), _target(compiler), repr(_FLAGS).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _target(compiler: list[str]) -> bytes:
    """Returns what -march=native means to the compiler here, and which compiler it is."""
    command = [*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    return _run(command)


def _compile(compiler: list[str], source: pathlib.Path, include: str, made: pathlib.Path) -> None:
    partial = made.with_suffix(f".{os.getpid()}")
    try:
        _run([*compiler, *_FLAGS, "-I", include, str(source), "-o", str(partial)])
        partial.replace(made)  # whole or absent, whoever else compiles it
    finally:
        partial.unlink(missing_ok=True)


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except OSError as error:
        raise UserError(
            f"native products: cannot run {command[0]}: {error.strerror}; {_OTHERWISE}"
        ) from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"native products: {command[0]} failed: {next((x for x in last if 'error' in x), '')}"
            f"; {_OTHERWISE}"
        ) from None
