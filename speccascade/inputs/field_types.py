"""Types of the fields that other programs write: what a value must be, and what is made of it."""

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = float(np.finfo(np.float32).max)

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 80


class Kind(NamedTuple):
    """A type: what messages call it, and what makes a value of it; ValueError where none is."""

    expected: str
    of: Callable[[Any], Any]


def show(value: Any) -> str:
    """Returns a value for a message: on one line, not all of it where it is long."""
    return " ".join(_shown.repr(value).split())


def plain(value: Any) -> Any:
    """Returns what a NumPy scalar or array or a ConfigDict holds; other values as they are."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "keys") and not isinstance(value, Mapping):
        return dict(value)
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_of(value: Any) -> int | float:
    """Returns a finite number that a value is or spells."""
    value = plain(value)
    if isinstance(value, str) and len(value) < 100 and _NUMBER.fullmatch(value.strip()):
        whole = value.strip().lstrip("+-").isdigit()
        value = int(value) if whole else float(value)
    # Compared as they are: an int may be too large to become a float.
    if not _is_number(value) or not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ValueError
    return value


def integer(at_least: int, at_most: int) -> Kind:
    """A whole number between two limits, themselves included."""

    def of(value: Any) -> int:
        number = _number_of(value)
        if number != int(number) or not at_least <= number <= at_most:
            raise ValueError
        return int(number)

    return Kind(f"a whole number from {at_least} to {at_most}", of)


def number(above: float | None = None, at_least: float | None = None) -> Kind:
    """A finite number, beyond a limit or from one on."""

    def of(value: Any) -> float:
        number = _number_of(value)
        if (above is not None and not number > above) or (
            at_least is not None and not number >= at_least
        ):
            raise ValueError
        return number if abs(number) <= LARGEST_INTEGER else float(number)

    limit = f" above {above}" if above is not None else ""
    return Kind("a number" + (f" of at least {at_least}" if at_least is not None else limit), of)


def choice(known: Mapping[str, Any]) -> Kind:
    """A text that stands for something else."""

    def of(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise ValueError
        return known[value]

    return Kind(f"one of {', '.join(known)}", of)


def equal(value: Any, known: Any) -> bool:
    """Returns whether a value is, or spells, a known one; false is also 0."""
    if _is_number(known) and value is not False:
        try:
            return _number_of(value) == known
        except ValueError:
            return False
    return value == known


def many(item: Kind, length: int | None = None, alone: bool = False) -> Kind:
    """A list of `length` items; where `alone`, an item that stands alone is a list of one."""

    def of(value: Any) -> list:
        if isinstance(value, list | tuple):
            if length is not None and len(value) != length:
                raise ValueError
            return [item.of(each) for each in value]
        if alone:
            return [item.of(value)]
        raise ValueError

    expected = f"a list{'' if length is None else f' of {length}'}, each {item.expected}"
    return Kind(f"{item.expected}, or {expected}" if alone else expected, of)


def _boolean_of(value: Any) -> bool:
    value = plain(value)
    if isinstance(value, bool) or (_is_number(value) and value in (0, 1)):
        return bool(value)
    raise ValueError


def _text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # half a surrogate pair is no text
    return value


def _object_of(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError
    return value


BOOLEAN = Kind("true or false", _boolean_of)
TEXT = Kind("a text", _text_of)
OBJECT = Kind("an object", _object_of)
