"""Numbers that a user gives, as the Python numbers that are meant.

They may be Python's, NumPy's or JAX's, of any size. A truth value is no number, and a text is none.
"""

import json
import math
import operator
import os
from typing import Any

import numpy as np

from speccascade.errors import UserError


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
    """Returns a finite number.

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
    if not math.isfinite(found):
        raise UserError(f"{name}={_shown(value)} must be a finite number")
    return found


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


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
