"""A workdir in a bucket (gs://): objects are written whole, and the lock is one its holder renews.

An object cannot be appended to, so `results.jsonl` is written anew with every row: beside it first,
then moved onto it, so that readers and whatever kills the process find one state or the next. Its
rows stay in the one file that `report` and people read; a sweep of a thousand rows is some
megabytes.

A lock cannot end with its holder there either. It is an object that its holder renews; one that has
not changed for `EXPIRES` seconds belongs to nobody. No two machines' clocks are compared.

Google's store creates an object only where there is none, if asked to: locks are numbered, who
creates the next number has it, and the newest number is never removed, only emptied. Of any other
store nothing such is known: who wants its one lock writes it, waits, and looks whose it is.
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
from speccascade.workdir.storage import storage

RENEWS = 15.0
EXPIRES = 60.0
SETTLES = 2.0  # in this time two that claim at once see each other's locks

LOCK = ".lock"
CREATES = ("gs",)  # stores whose client creates an object only where there is none


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
    folder = epath.Path(workdir)
    own = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
    with storage(workdir):
        folder.exists()
    lock = (_Numbered if _creates(folder) else _Settled)(folder, own)
    _wait_until_free(lock, workdir)
    with _told(folder):
        taken = lock.take()
    if not taken:
        raise _busy(workdir)
    ended, lost = threading.Event(), threading.Event()
    renewing = threading.Thread(target=_renew, args=(lock, ended, lost), daemon=True)
    renewing.start()

    def check():
        with _told(folder):
            gone = lost.is_set() or not lock.held()
        if gone:
            lost.set()
            raise UserError(f"another process has taken over {workdir}; this one stops")

    try:
        yield check
    finally:
        ended.set()
        renewing.join()
        if not lost.is_set():
            with contextlib.suppress(Exception):  # it expires by itself
                lock.release()


class _Settled:
    """The one lock of a store that overwrites without asking."""

    def __init__(self, folder: epath.Path, own: str):
        self._path, self._own = folder / LOCK, own

    def read(self) -> str:
        """Returns what the lock says, nothing where nobody has it."""
        return _read(self._path)

    def take(self) -> bool:
        """Returns whether a lock that was free is this process's now."""
        self.write(0)
        time.sleep(SETTLES)
        return self.read().startswith(self._own)

    def held(self) -> bool:
        """Returns whether nobody else has taken over."""
        found = self.read()
        return not found or found.startswith(self._own)

    def write(self, count: int) -> None:
        """Renews it for the `count`-th time."""
        write(self._path, f"{self._own} {count}".encode())

    def release(self) -> None:
        self._path.unlink()


class _Numbered:
    """The newest of a store's numbered locks.

    Numbers only grow: who took a lock for expired cannot, however slow, take the place of whoever
    has taken over meanwhile.
    """

    def __init__(self, folder: epath.Path, own: str):
        self._folder, self._own = folder, own
        self._number = 0  # that read last; once taken, this process's own

    def read(self) -> str:
        """Returns number and content of the newest lock, nothing where nobody has it."""
        self._number = self._newest()
        found = _read(self._path(self._number))
        return f"{self._number} {found}" if found else ""

    def take(self) -> bool:
        """Returns whether a lock that was free when it was read last is this process's now."""
        self._number += 1
        path = self._path(self._number)
        try:
            _client(path).pipe_file(os.fspath(path), self._text(0), mode="create")
        except FileExistsError:  # its own, perhaps, where the client asked twice
            if not _read(path).startswith(self._own):
                return False
        if not self.held():
            path.unlink()
            return False
        for number in self._numbers():
            if number < self._number:
                self._path(number).unlink(missing_ok=True)
        return True

    def held(self) -> bool:
        """Returns whether nobody else has taken over."""
        return self._newest() == self._number

    def write(self, count: int) -> None:
        """Renews it for the `count`-th time."""
        self._path(self._number).write_bytes(self._text(count))

    def release(self) -> None:
        self._path(self._number).write_bytes(b"")

    def _text(self, count: int) -> bytes:
        return f"{self._own} {count}".encode()

    def _path(self, number: int) -> epath.Path:
        return self._folder / f"{LOCK}.{number:06d}"

    def _numbers(self) -> list[int]:
        _client(self._folder).invalidate_cache()
        found = (path.name.rpartition(".")[2] for path in self._folder.glob(f"{LOCK}.*"))
        return [int(number) for number in found if number.isdigit()]

    def _newest(self) -> int:
        return max(self._numbers(), default=0)


def _creates(path: epath.Path) -> bool:
    return os.fspath(path).partition("://")[0] in CREATES and _client(path) is not None


def _client(path: epath.Path):
    """Returns the fsspec file system behind a path, None where another client is."""
    find = getattr(path._backend, "fs", None)
    return None if find is None else find(path)


def _wait_until_free(lock: _Settled | _Numbered, workdir: str) -> None:
    """Returns once there is no lock or it has expired."""
    if not (seen := lock.read()):
        return
    print(f"{workdir} is locked; waiting {EXPIRES:g} s if that is renewed", file=sys.stderr)
    deadline = time.monotonic() + EXPIRES
    while time.monotonic() < deadline:
        time.sleep(min(RENEWS, EXPIRES) / 4)
        if not (now := lock.read()):
            return
        if now != seen:
            raise _busy(workdir)


def _busy(workdir: str) -> UserError:
    return UserError(f"another process works in {workdir}; wait for it or choose another workdir")


def _read(path: epath.Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        if (client := _client(path)) is not None:
            client.invalidate_cache()  # listings that it keeps know nothing of other processes
        return path.read_text()
    return ""


def _renew(lock: _Settled | _Numbered, ended: threading.Event, lost: threading.Event) -> None:
    count = 0
    while not ended.wait(RENEWS):
        with contextlib.suppress(Exception):  # the next turn may reach the bucket again
            if not lock.held():
                lost.set()
                return
            count += 1
            lock.write(count)
