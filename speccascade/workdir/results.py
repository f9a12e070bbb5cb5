"""`results.jsonl`: rows added as they are made, which survive whatever kills the process."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths, text_files
from speccascade.workdir.growing import Growing
from speccascade.workdir.storage import storage

Row = dict[str, Any]
FILE = "results.jsonl"


def read(workdir: str) -> list[Row]:
    """Returns the rows so far; a last line that a kill cut short is left out.

    Raises:
      UserError: a line before the last cannot be read, or one is no row.
    """
    workdir = paths.plain(workdir)
    with storage(workdir):
        return _read(os.path.join(workdir, FILE))[0]


def named(source: str) -> tuple[str, str] | None:
    """Returns the workdir and the words of a setting that `PATH#WORDS` names; None for a file."""
    path, _, words = source.partition("#")
    path = paths.plain(path)
    return (path, words) if (epath.Path(path) / "config.json").exists() else None


def _read(path: str) -> tuple[list[Row], bytes]:
    """Returns the rows and the bytes that hold them."""
    rows, data = text_files.read_journal(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("key"), str):
            raise UserError(f"row {number} of {path} has no key; remove its line")
    return rows, data


class Results:
    """The rows of a workdir that this process has claimed.

    Attributes:
      rows: all rows, by key; of several with one key the newest.
    """

    def __init__(self, workdir: str, check: Callable[[], None] = lambda: None, file: str = FILE):
        """Reads the rows so far, without a last line that was cut short.

        Args:
          workdir: where they are.
          check: from `claim`; called before every row.
          file: the file's name there.
        """
        path = os.path.join(paths.plain(workdir), file)
        rows, data = _read(path)
        self.rows = {row["key"]: row for row in rows}
        self._file = Growing(path, data, check)

    def append(self, row: Row) -> None:
        """Adds one row; when this returns it is on the disk, or in the bucket.

        Raises:
          UserError: it could not be written; the rows before it are intact.
          ValueError: it holds NaN or an infinity, which JSON has no word for.
        """
        self._file.add((json.dumps(row, allow_nan=False) + "\n").encode())
        self.rows[row["key"]] = row

    def replace(self, rows: Mapping[str, Row]) -> None:
        """Puts rows in the place of others.

        Args:
          rows: by the keys of those whose place they take.

        Raises:
          UserError: they could not be written; all are intact.
        """
        newest = (rows.get(key, row) for key, row in self.rows.items())
        self._keep({row["key"]: row for row in newest})

    def drop(self, keys: Iterable[str]) -> None:
        """Removes rows, and the file with the last of them.

        Raises:
          UserError: the others could not be written anew; all are intact.
        """
        gone = set(keys)
        left = {key: row for key, row in self.rows.items() if key not in gone}
        if len(left) < len(self.rows):
            self._keep(left)

    def _keep(self, rows: dict[str, Row]) -> None:
        lines = (json.dumps(row, allow_nan=False) + "\n" for row in rows.values())
        self._file.replace("".join(lines).encode())
        self.rows = rows
