"""What a user gives, in a config or a call, read by type.

Numbers may be Python's, NumPy's or JAX's, of any size. A truth value is no number, and a text is
none. A section may be a dict or a ConfigDict.
"""

import json
import math
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.inputs.field_types import LARGEST_NUMBER


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Returns a whole number.

    Args:
      name: what the message calls it.
      value: what was given.
      least: the least that it may be; None for any.

    Raises:
      UserError: it is none (5.0 is none either), or too small.
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None:
        more = "" if least is None else f", at least {least}"
        raise UserError(f"{name}={_shown(value)} must be a whole number{more}")
    if least is not None and found < least:
        raise UserError(f"{name}={value} must be at least {least}")
    return found


def number(name: str, value: Any) -> float:
    """Returns a finite number, also as float32, in which everything is computed.

    Raises:
      UserError: it is none.
    """
    array = np.asarray(value)
    found = math.nan
    if array.ndim == 0 and array.dtype.kind not in "bSUMmc":
        try:
            found = float(array.item())
        except (TypeError, ValueError, OverflowError):
            pass
    if not abs(found) <= LARGEST_NUMBER:
        raise UserError(f"{name}={_shown(value)} must be a finite number")
    return found


def wholes(name: str, value: Any, least: int | None = None) -> list[int]:
    """Returns at least one whole number; one that stands alone is a list of one.

    Raises:
      UserError: it is something else; see `whole`.
    """
    return [whole(name, each, least) for each in _several(name, value)]


def numbers(name: str, value: Any) -> list[float]:
    """Returns at least one finite number; one that stands alone is a list of one.

    Raises:
      UserError: it is something else; see `number`.
    """
    return [number(name, each) for each in _several(name, value)]


def _several(name: str, value: Any) -> list:
    if getattr(value, "ndim", None) == 0 or not isinstance(value, Iterable):
        return [value]
    if isinstance(value, str | bytes) or hasattr(value, "keys"):
        raise UserError(f"{name}={_shown(value)} must be a list of numbers")
    if not (found := list(value)):
        raise UserError(f"{name} is empty; give it at least one number")
    return found


def boolean(name: str, value: Any) -> bool:
    """Returns true or false; "false" is a text.

    Raises:
      UserError: it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name}={_shown(value)} must be True or False")
    return bool(value)


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Returns one of some texts; messages call it `name`, "rule" or "mesh.drafter=".

    Raises:
      UserError: it is none of them, or no text.
    """
    if isinstance(value, str) and value in known:
        return value
    between = "" if name.endswith("=") else " "
    raise UserError(f"{name}{between}{value!r} is unknown; choose one of: {', '.join(known)}")


def section(name: str, value: Any, needed: Iterable[str] = (), example: str = "") -> Mapping:
    """Returns a section of a config, or all of one.

    Args:
      name: what messages call it; empty for all.
      value: what was given.
      needed: the fields that it must have; "timing.trials" is one of a section within.
      example: a config that has them.

    Raises:
      UserError: it is no mapping, or lacks one of the fields.
    """
    see = f"; see {example}" if example else ""
    if not hasattr(value, "keys"):
        raise UserError(f"{name or 'the config'}={_shown(value)} must be a section of fields{see}")
    prefix = f"{name}." if name else ""
    if missing := [prefix + field for field in needed if not _has(value, field)]:
        raise UserError(f"the config lacks {', '.join(missing)}{see}")
    return value


def _has(found: Mapping, field: str) -> bool:
    """Returns whether a section has a field, and a section within, as far as it is one, another."""
    name, _, within = field.partition(".")
    if name not in found:
        return False
    return not within or not hasattr(found[name], "keys") or _has(found[name], within)


def _shown(value: Any) -> str:
    """Returns a value for a message, on one line."""
    text = repr(value) if isinstance(value, str) else " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def json_ready(value: Any) -> Any:
    """Returns a config's value as JSON gives it back: lists, numbers, texts of paths.

    Raises:
      UserError: it holds something that no file can keep.
    """
    return json.loads(json.dumps(value, default=_as_json))


def _as_json(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays and their scalars
        return value.tolist()
    raise UserError(f"{value!r} in the config is neither number, text, list nor path")
