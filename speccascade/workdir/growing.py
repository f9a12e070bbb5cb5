"""A file that grows by whole parts and survives whatever kills the process that adds them.

On a disk a part is appended; in a bucket, where that cannot be, the whole is written anew.
"""

import contextlib
import os
from collections.abc import Callable

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths
from speccascade.workdir import bucket


class Growing:
    """A file in a workdir that this process has claimed."""

    def __init__(self, path: str, data: bytes, check: Callable[[], None] = lambda: None):
        """Begins where the file's whole parts end; what a kill cut short behind them is dropped.

        Args:
          path: of the file, which may be missing.
          data: the bytes of its whole parts.
          check: from `claim`; called before every change.
        """
        self._path = path
        self._check = check
        self._data = data if paths.is_bucket(path) else None
        if self._data is None and os.path.exists(path) and os.path.getsize(path) > len(data):
            os.truncate(path, len(data))

    def add(self, part: bytes) -> None:
        """Adds a part; when this returns it is on the disk, or in the bucket.

        Raises:
          UserError: it could not be written; what was there is intact.
        """
        self._check()
        if self._data is None:
            self._append(part)
        else:
            bucket.write(epath.Path(self._path), self._data + part)
            self._data += part

    def replace(self, data: bytes) -> None:
        """Puts other content in the file's place, or removes the file where there is none.

        Raises:
          UserError: it could not be written; what was there is intact.
        """
        self._check()
        if not data:
            bucket.remove(epath.Path(self._path))
        elif self._data is None:
            self._rewrite(data)
        else:
            bucket.write(epath.Path(self._path), data)
        self._data = None if self._data is None else data

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

    def _append(self, part: bytes) -> None:
        start = os.path.getsize(self._path) if os.path.exists(self._path) else 0
        try:
            with open(self._path, "ab") as file:
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, start)
            raise _unwritable(self._path, error) from None


def _unwritable(path: str, error: OSError) -> UserError:
    return UserError(
        f"cannot write to {path}: {error.strerror}; what was there is kept, make room and start "
        "again"
    )
