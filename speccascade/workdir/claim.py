"""Whose a workdir is: one process at a time, and one config for good."""

import contextlib
import fcntl
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths, values
from speccascade.workdir import bucket
from speccascade.workdir.files import read_json, write_json
from speccascade.workdir.storage import storage

_SHOWN = 6  # fields in a message


@contextlib.contextmanager
def claim(workdir: str) -> Iterator[Callable[[], None]]:
    """Keeps other processes out of `workdir` for as long as the context lasts.

    Yields:
      What raises UserError where the claim was lost, which can be in a bucket alone.

    Raises:
      UserError: another process works there, or the directory cannot be made.
    """
    workdir = paths.plain(workdir)
    if paths.is_bucket(workdir):
        with bucket.claim(workdir) as check:
            yield check
        return
    try:
        os.makedirs(workdir, exist_ok=True)
        lock = open(os.path.join(workdir, ".lock"), "w")
    except OSError as error:
        raise UserError(
            f"cannot write to {workdir}: {error.strerror}; choose another workdir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process works in {workdir}; wait for it or choose another workdir"
            ) from None
        yield lambda: None  # the lock goes with the file, however the process ends


def claim_workdir(workdir: str, config: dict[str, Any], may_change: Sequence[str] = ()) -> None:
    """Makes `workdir`, or checks that it was made from the same `config`, as `check_config` does.

    Raises:
      UserError: names the fields that differ. Nothing in the workdir is changed then.
    """
    if check_config(workdir, config, may_change):
        path = os.path.join(paths.plain(workdir), "config.json")
        epath.Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(path, values.json_ready(config))


def check_config(workdir: str, config: dict[str, Any], may_change: Sequence[str] = ()) -> bool:
    """Checks that `workdir`, if it is there, was made from the same `config`.

    Args:
      workdir: the directory.
      config: nested sections, JSON-ready.
      may_change: fields, or sections of them, that may differ from what the workdir was made from,
        such as "evaluate.settings".

    Returns:
      Whether what is noted there is to be written, for the first time or anew.

    Raises:
      UserError: names the other fields that differ.
    """
    config = values.json_ready(config)  # tuples become lists, as in the file
    workdir = paths.plain(workdir)
    path = os.path.join(workdir, "config.json")
    with storage(workdir):
        is_new = not epath.Path(path).exists()
    if is_new:
        return True
    there = read_json(path)
    old, new = _flatten(there), _flatten(config)
    fields = sorted(
        key
        for key in old.keys() | new.keys()
        if old.get(key) != new.get(key)
        and not any(f"{key}.".startswith(f"{field}.") for field in may_change)
    )
    if fields:

        def show(value):  # a field may hold a whole grid
            return textwrap.shorten(str(value), 80, placeholder=" ...")

        differing = ", ".join(
            f"{k} ({show(old.get(k))} there, {show(new.get(k))} now)" for k in fields[:_SHOWN]
        )
        if len(fields) > _SHOWN:
            differing += f" and {len(fields) - _SHOWN} more"
        raise UserError(f"{workdir} was made from another config: {differing}; use a new workdir")
    return there != config


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
