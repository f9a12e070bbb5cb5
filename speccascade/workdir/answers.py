"""The answers behind rows of results: `answers/NAME.jsonl.gz`, a file for each setting and split.

They are added as they are decoded, those done together as a gzip member of their own, so that a
kill loses what was being decoded at most; `gunzip -c` reads such a file as one. A file whose
answers are all there is packed into one member.
"""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths
from speccascade.workdir.growing import Growing

FOLDER = "answers"

Answer = dict[str, Any]


def read(workdir: str, name: str, folder: str = FOLDER) -> list[Answer]:
    """Returns the answers under a name, none where there are none.

    Raises:
      UserError: the file is damaged.
    """
    return _read(path_of(workdir, name, folder))[0]


def path_of(workdir: str, name: str, folder: str = FOLDER) -> str:
    """Returns the file of the answers under a name."""
    return os.path.join(workdir, folder, f"{name}.jsonl.gz")


def _read(path: str) -> tuple[list[Answer], bytes]:
    """Returns the answers and the bytes of whole members: a kill cuts the last one short."""
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        return [], b""
    found, end = [], 0
    try:
        while end < len(data):
            member = zlib.decompressobj(wbits=31)
            text = member.decompress(data[end:])
            if not member.eof:
                break
            found += [json.loads(line) for line in text.decode().split("\n") if line]
            end = len(data) - len(member.unused_data)
    except (zlib.error, ValueError):
        raise UserError(
            f"{path} is damaged; remove it, what it had is then made again"
        ) from None
    return found, data[:end]


class Answers:
    """The answers of a workdir that this process has claimed, or what else goes by answer."""

    def __init__(
        self, workdir: str, check: Callable[[], None] = lambda: None, folder: str = FOLDER
    ):
        """Takes the workdir, from `claim` what is called before every change, and the folder."""
        self._workdir = workdir
        self._check = check
        self._folder = folder
        self._open: dict[str, Growing] = {}

    def known(self, name: str) -> list[Answer]:
        """Returns the answers under a name so far, none where there are none."""
        path = path_of(self._workdir, name, self._folder)
        found, data = _read(path)
        if not paths.is_bucket(self._workdir):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        self._open[name] = Growing(path, data, self._check)
        return found

    def add(self, name: str, answers: Iterable[Answer]) -> None:
        """Adds answers under a name that `known` was asked for.

        Raises:
          UserError: they could not be written; those before are intact.
        """
        self._open[name].add(_packed(answers))

    def pack(self, name: str) -> None:
        """Packs the answers under a name into one member, the newest to each example."""
        newest = {a["id"]: a for a in read(self._workdir, name, self._folder)}
        self._open[name].replace(_packed(newest.values()))


def _packed(answers: Iterable[Answer]) -> bytes:
    lines = "".join(json.dumps(answer, allow_nan=False) + "\n" for answer in answers)
    return gzip.compress(lines.encode(), mtime=0)
