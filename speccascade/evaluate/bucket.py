"""A workdir in a bucket (gs://): objects are written whole, and the lock is one its holder renews.

An object cannot be appended to, so `results.jsonl` is written anew with every row: beside it first,
then moved onto it, so that readers and whatever kills the process find one state or the next. Its
rows stay in the one file that `report` and people read; a sweep of a thousand rows is some
megabytes.

A lock cannot end with its holder there either. It is an object that its holder renews; one that has
not changed for `EXPIRES` seconds belongs to nobody. No two machines' clocks are compared.
"""

import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from etils import epath

from speccascade.errors import UserError
from speccascade.importing.sources import storage

RENEWS = 15.0
EXPIRES = 60.0
SETTLES = 2.0  # in this time two that claim at once see each other's locks

LOCK = ".lock"


def write(path: epath.Path, data: bytes) -> None:
    """Replaces an object.

    Raises:
      UserError: it could not be written; what was there is intact.
    """
    partial = path.parent / f"{path.name}.partial"
    with _told(path):
        partial.write_bytes(data)
        partial.replace(path)


def remove(path: epath.Path) -> None:
    """Removes an object, or a file, if it is there.

    Raises:
      UserError: it could not be removed.
    """
    with _told(path):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: epath.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every client package raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot write to {path.as_uri()}: {reason}; what was there is kept, see to it and "
            "start again"
        ) from error


@contextlib.contextmanager
def claim(workdir: str) -> Iterator[Callable[[], None]]:
    """Keeps other processes out of `workdir` for as long as the context lasts.

    Yields:
      What raises UserError once another process has taken over, as one may where this one could not
      renew its lock for long.

    Raises:
      UserError: another process works there, or the bucket cannot be written to.
    """
    path = epath.Path(workdir) / LOCK
    own = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
    with storage(workdir):
        path.exists()
    _wait_until_free(path, workdir)
    write(path, f"{own} 0".encode())
    time.sleep(SETTLES)
    if not _read(path).startswith(own):
        raise _busy(workdir)
    ended, lost = threading.Event(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, own, ended, lost), daemon=True)
    renewing.start()

    def check():
        if lost.is_set():
            raise UserError(f"another process has taken over {workdir}; this one stops")

    try:
        yield check
    finally:
        ended.set()
        renewing.join()
        if not lost.is_set():
            with contextlib.suppress(Exception):  # it expires by itself
                path.unlink()


def _wait_until_free(path: epath.Path, workdir: str) -> None:
    """Returns once there is no lock or it has expired."""
    if not (seen := _read(path)):
        return
    print(f"{workdir} is locked; waiting {EXPIRES:g} s if that is renewed", file=sys.stderr)
    deadline = time.monotonic() + EXPIRES
    while time.monotonic() < deadline:
        time.sleep(min(RENEWS, EXPIRES) / 4)
        if not (now := _read(path)):
            return
        if now != seen:
            raise _busy(workdir)


def _busy(workdir: str) -> UserError:
    return UserError(f"another process works in {workdir}; wait for it or choose another workdir")


def _read(path: epath.Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _renew(path: epath.Path, own: str, ended: threading.Event, lost: threading.Event) -> None:
    count = 0
    while not ended.wait(RENEWS):
        with contextlib.suppress(Exception):  # the next turn may reach the bucket again
            found = _read(path)
            if found and not found.startswith(own):
                lost.set()
                return
            count += 1
            write(path, f"{own} {count}".encode())
