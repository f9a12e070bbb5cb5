"""Compiles `models/native.cc` for this machine, once, into the user's cache folder."""

import contextlib
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
    include = jax.ffi.include_dir()
    name = f"{_key(native.SOURCE, compiler, include)}.so"
    folder = user_cache.folder("native")
    if folder is not None and (kept := folder / name).exists():
        try:
            native.load(kept)
        except OSError as error:
            raise UserError(f"{kept} cannot be loaded ({error}); remove it") from None
        return
    with _scratch(folder) as scratch:
        made = pathlib.Path(scratch) / name
        _run([*compiler, *_FLAGS, "-I", include, str(native.SOURCE), "-o", str(made)])
        try:
            native.load(made)
        except OSError as error:
            raise UserError(
                f"native products: what {compiler[0]} made cannot be loaded ({error}); {_OTHERWISE}"
            ) from None
        if folder is not None:
            with contextlib.suppress(OSError):  # it cannot be kept: made anew the next time
                made.replace(folder / name)  # whole or absent, whoever else compiles it


def _compiler() -> list[str]:
    named = os.environ.get("CXX", "").strip()
    try:
        if named:
            return shlex.split(named)
    except ValueError as error:
        raise UserError(f"CXX={named} is no command ({error}); {_OTHERWISE}") from None
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


def _scratch(folder: pathlib.Path | None) -> tempfile.TemporaryDirectory:
    """Returns a folder for a while, within another where that can be written."""
    try:
        return tempfile.TemporaryDirectory(dir=folder)
    except OSError:
        return tempfile.TemporaryDirectory()


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
