"""Reads what others wrote as text: lines, JSON, JSON lines and, for rows, Parquet.

Text is UTF-8, plain or gzipped; a byte order mark before it is dropped. Lines end at "\\n" or
"\\r\\n" and nowhere else: a JSON string may hold whatever else Unicode takes for the end of one.
"""

import gzip
import importlib
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths, plain_text

Path = str | os.PathLike
_MARK = "\ufeff"
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # marks of UTF-16; one of UTF-32 begins like it


def read(path: Path, name: str | None = None) -> str:
    """Returns a file's text.

    Args:
      path: the file.
      name: what messages call it; None for its path.

    Raises:
      UserError: it is missing, a damaged archive, or no UTF-8; the message names the line.
    """
    name = f"{path}" if name is None else name
    return _text(_content(path, name), name)


def read_lines(path: Path) -> list[str]:
    """Returns a file's lines without their ends; see `read`."""
    return lines(read(path))


def lines(text: str) -> list[str]:
    """Returns the lines of a text; the mark of a file that was appended to another is dropped."""
    found = text.split("\n")
    if not found[-1]:
        found.pop()
    return [line.removesuffix("\r").removeprefix(_MARK) for line in found]


def argument(text: str, flag: str) -> str:
    """Returns a text from the command line, without the mark of a file that it came from.

    Raises:
      UserError: it was no UTF-8.
    """
    return plain_text.one(text, flag).removeprefix(_MARK)


def read_json(path: Path) -> Any:
    """Returns what a file of JSON holds.

    Raises:
      UserError: as `read`, or it is no JSON.
    """
    return parse(read(path), f"{path}")


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the rows of JSON lines or, with `pyarrow`, of a Parquet file.

    Yields:
      Its number from 1 on, that of its line where the file has lines, and a row's fields. Blank
      lines are no rows.

    Raises:
      UserError: as `read`, or a row is no JSON object, or one of its texts is none.
    """
    data = _content(path, f"{path}")
    if data.startswith(_PARQUET):
        yield from _parquet_rows(data, path)
        return
    text = _text(data, f"{path}")
    found = lines(text)
    for number, line in enumerate(found, 1):
        if not line.strip():
            continue
        try:
            row = _row(line, f"{path} line {number}")
        except UserError as error:
            if number < len(found) or text.endswith("\n"):
                raise
            raise UserError(f"{error}; the file ends in it: was it cut short?") from None
        yield number, row


def read_journal(path: Path) -> tuple[list[dict[str, Any]], bytes]:
    """Reads JSON lines that a program appends; a last line that a kill cut short is left out.

    Returns:
      The rows, and the bytes that hold them, after which the next is to be written.

    Raises:
      UserError: another line is no JSON object.
    """
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        return [], b""
    rows, end = [], 0
    for number, line in enumerate(data.split(b"\n")[:-1], 1):  # what ends in no "\n" was cut short
        after = end + len(line) + 1
        name = f"line {number} of {path}"
        try:
            text = line.decode("utf-8-sig").strip()
            value = json.loads(text) if text else None
        except (ValueError, RecursionError):
            if after == len(data):  # a power cut may leave anything at the end
                break
            raise UserError(f"{name} is damaged; remove that line") from None
        if text:
            if not isinstance(value, dict):
                raise UserError(f"{name} is no row but {plain_text.show(value)}; remove that line")
            rows.append(value)
        end = after
    return rows, data[:end]


def parse(text: str, name: str) -> Any:
    """Returns the value of a JSON text that messages call `name`.

    Raises:
      UserError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise UserError(f"{name} is no JSON ({error})") from None


def parse_object(text: str, name: str) -> dict[str, Any]:
    """Returns the JSON object that a text is; see `parse`."""
    value = parse(text, name)
    if not isinstance(value, dict):
        raise UserError(f"{name} must be a JSON object, not {plain_text.show(value)}")
    return value


def _row(line: str, name: str) -> dict[str, Any]:
    value = parse_object(line, name)
    if "\\u" in line:  # how half a character gets into a file of UTF-8
        for key, field in value.items():
            plain_text.one(key, f"{name}: a field's name")
            text = field if isinstance(field, str) else json.dumps(field, ensure_ascii=False)
            plain_text.one(text, f"{name}: {key}")
    return value


def _parquet_rows(data: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        pyarrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            f"{path} needs the package pyarrow: pip install -r requirements-tasks.txt, or give "
            "JSON lines"
        ) from None
    number = 0
    try:
        for batch in parquet.ParquetFile(pyarrow.BufferReader(data)).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged after row {number} ({reason}); copy it again") from None


def _content(path: Path, name: str) -> bytes:
    """Returns the bytes of a file, of an archive those inside."""
    file = epath.Path(paths.plain(path))
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{name} is missing") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from None
    except ImportError as error:
        raise UserError(f"{name} needs a package that is not installed: {error}") from None
    if not (file.name.endswith(".gz") or data.startswith(_GZIP)):
        return data
    try:
        if not data:
            raise EOFError("it is empty")
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{name} is a damaged archive ({error}); copy it again") from None


def _text(data: bytes, name: str) -> str:
    if data.startswith(_PARQUET):
        raise UserError(f"{name} is a Parquet file; give text")
    if data.startswith(_WIDE):
        raise UserError(f"{name} line 1 is UTF-16; save the file as UTF-8")
    at, what = data.find(b"\0"), "holds a zero byte, as UTF-16 and files cut short by a crash do"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The position is that behind a mark.
        start = error.start + len(data) - len(error.object)
        if at < 0 or start < at:
            at, what = start, f"is not UTF-8 (byte 0x{data[start]:02x})"
    if at >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise UserError(f"{name} line {line} {what}; save the file as UTF-8")
    return text
