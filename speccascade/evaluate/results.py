"""`results.jsonl`: rows added as they are made, which survive whatever kills the process."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

from speccascade import paths
from speccascade.errors import UserError
from speccascade.evaluate import bucket
from speccascade.importing.sources import storage

Row = dict[str, Any]
FILE = "results.jsonl"


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


def read(workdir: str) -> list[Row]:
    """Returns the rows so far; a last line that a kill cut short is left out.

    Raises:
      UserError: a line that is not the last cannot be read.
    """
    workdir = paths.plain(workdir)
    with storage(workdir):
        return _read(os.path.join(workdir, FILE))[0]


def _read(path: str) -> tuple[list[Row], bytes]:
    """Returns the rows and the bytes that hold them."""
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        return [], b""
    rows, end = [], 0
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if end + len(line) < len(data):
                raise UserError(f"line {number} of {path} is damaged; remove that line") from None
            break
        if not line.endswith(b"\n"):  # whole or not, the next row must not follow on this line
            rows.pop()
            break
        end += len(line)
    return rows, data[:end]


class Results:
    """The rows of a workdir that this process has claimed.

    On a disk rows are appended; in a bucket, where that cannot be, the whole is written anew.

    Attributes:
      rows: all rows, by key.
    """

    def __init__(self, workdir: str, check: Callable[[], None] = lambda: None, file: str = FILE):
        """Reads the rows so far, without a last line that was cut short.

        Args:
          workdir: where they are.
          check: from `claim`; called before every row.
          file: the file's name there.
        """
        workdir = paths.plain(workdir)
        self._path = os.path.join(workdir, file)
        self._check = check
        rows, data = _read(self._path)
        self.rows = {row["key"]: row for row in rows}
        self._data = data if paths.is_bucket(workdir) else None
        if self._data is None and os.path.exists(self._path):
            os.truncate(self._path, len(data))

    def append(self, row: Row) -> None:
        """Adds one row; when this returns it is on the disk, or in the bucket.

        Raises:
          UserError: it could not be written; the rows before it are intact.
          ValueError: it holds NaN or an infinity, which JSON has no word for.
        """
        line = json.dumps(row, allow_nan=False) + "\n"
        self._check()
        if self._data is None:
            self._append(line)
        else:
            data = self._data + line.encode()
            bucket.write(epath.Path(self._path), data)
            self._data = data
        self.rows[row["key"]] = row

    def drop(self, keys: Iterable[str]) -> None:
        """Removes rows, and the file with the last of them.

        Raises:
          UserError: the others could not be written anew; all are intact.
        """
        gone = set(keys)
        left = {key: row for key, row in self.rows.items() if key not in gone}
        if len(left) == len(self.rows):
            return
        self._check()
        data = "".join(json.dumps(row) + "\n" for row in left.values()).encode()
        path = epath.Path(self._path)
        if not left:
            bucket.remove(path)
        elif self._data is None:
            self._rewrite(data)
        else:
            bucket.write(path, data)
        self._data = None if self._data is None else data
        self.rows = left

    def _rewrite(self, data: bytes) -> None:
        partial = self._path + ".partial"
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def _append(self, line: str) -> None:
        start = os.path.getsize(self._path) if os.path.exists(self._path) else 0
        try:
            with open(self._path, "a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, start)
            raise _unwritable(self._path, error) from None


def _unwritable(path: str, error: OSError) -> UserError:
    return UserError(
        f"cannot write to {path}: {error.strerror}; the rows before are kept, make room and start "
        "again"
    )
