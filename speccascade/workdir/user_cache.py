"""Where this package keeps what can be made again: `$XDG_CACHE_HOME/speccascade`, or `~/.cache`."""

import os
import pathlib


def folder(name: str) -> pathlib.Path | None:
    """Returns a folder of the user's cache, None where it cannot be made."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        found = pathlib.Path(base).expanduser() / "speccascade" / name
        found.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or no home at all
        return None
    return found
