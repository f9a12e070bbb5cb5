"""Hashes of pairs, kept between starts: to make one reads every byte of all models.

A hash is kept in the user's cache under what the parameters were made of (an origin): the checksums
of a checkpoint that has them, or the path, size and time of change of the files of one that has
none (a Hugging Face directory, GGUF), with the options, models and code that make parameters of
them. Files changed behind an unchanged size and time go unnoticed until `forget`.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax

from speccascade.workdir import user_cache

_MAKERS = ("inputs", "importing", "models", "pairs", "sharding", "workdir")


def origin(parts: Mapping[str, Any]) -> str | None:
    """Returns a digest of what parameters were made of, None where something of it is unknown.

    Args:
      parts: JSON-ready, by role or option; a role's is None where its source is not known.
    """
    if any(part is None for part in parts.values()):
        return None
    here = [jax.__version__, jax.default_backend(), _code()]
    return hashlib.sha256(json.dumps([parts, here], sort_keys=True).encode()).hexdigest()[:32]


def folder() -> pathlib.Path | None:
    """Returns where hashes are kept, None where they cannot be."""
    return user_cache.folder("pair_hashes")


def read(origin: str) -> str | None:
    """Returns the hash that is kept under an origin, None where there is none."""
    place = folder()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if place is not None and re.fullmatch(
            "[0-9a-f]{16}", text := (place / origin).read_text(encoding="ascii")
        ):
            return text
    return None


def keep(origin: str, value: str) -> None:
    """Keeps a hash under an origin, where the cache can be written."""
    if (place := folder()) is not None:
        with contextlib.suppress(OSError):
            partial = place / f".{origin}.{os.getpid()}"
            partial.write_text(value, encoding="ascii")
            partial.replace(place / origin)


def forget() -> None:
    """Drops all that is kept, so that hashes are made of the bytes again."""
    if (place := folder()) is not None:
        for path in place.iterdir():
            path.unlink(missing_ok=True)


@functools.cache
def _code() -> str:
    """Returns a digest of the code that makes parameters of files."""
    root, digest = pathlib.Path(__file__).parents[1], hashlib.sha256()
    for name in _MAKERS:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()
