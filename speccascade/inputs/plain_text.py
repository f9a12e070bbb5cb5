"""What counts as a text, and as a list of texts: prompts, stop strings, the columns of a row."""

from collections.abc import Iterable, Set
from typing import Any

from speccascade.errors import UserError


def one(value: Any, name: str) -> str:
    """Returns a text as a plain `str`; NumPy's strings are texts, paths, bytes and numbers not.

    Args:
      value: what was given.
      name: what messages call it.

    Raises:
      UserError: it is no text, or holds half a surrogate pair, which no encoding has.
    """
    if not isinstance(value, str):
        raise UserError(f"{name} must be a text, not {show(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{name} holds half a surrogate pair, {value[error.start]!r}, as character "
            f"{error.start + 1}: an emoji cut in two, or a byte that is not UTF-8; correct it"
        ) from None
    return str.__str__(value) if type(value).__module__ == "numpy" else value


def several(values: Any, name: str) -> tuple[str, ...]:
    """Returns texts; one text alone is a list of one, never its letters.

    Args:
      values: a text, or an ordered collection of them.
      name: what messages call the whole.

    Raises:
      UserError: it is neither.
    """
    if isinstance(values, str):
        return (one(values, name),)
    unordered = isinstance(values, (bytes, bytearray, memoryview, Set)) or hasattr(values, "keys")
    try:
        found = None if unordered or not isinstance(values, Iterable) else list(values)
    except TypeError:  # a NumPy array of no dimension
        found = None
    if found is None:
        raise UserError(f"{name} must be a list of texts, not {show(values)}")
    return tuple(one(value, f"{name}[{i}]") for i, value in enumerate(found))


def show(value: Any) -> str:
    """Returns a value and its type for a message, in one line of no great length."""
    if value is None:
        return "None"
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
