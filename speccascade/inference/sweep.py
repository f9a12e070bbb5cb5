"""The small language in which configs write a grid: products and zips of fields, added together.

    settings = product(method="autoregressive_expert", temperature=(0.0, 1.0))
    settings += product(rule=("token_v2", "token_v3"), alpha=(0.1, 0.3), draft_length=(3, 5))
    settings += zipped(rule="bild", alpha=(2.0, 3.0), fallback=(0.6, 0.4), draft_length=10)

Each gives a tuple of dicts, one per setting: all that `config.evaluate.settings` has to be.
"""

import itertools
from typing import Any

from speccascade.errors import UserError

Entry = dict[str, Any]


def product(**fields: Any) -> tuple[Entry, ...]:
    """Returns every combination of the fields' values; a field that is no tuple or list has one."""
    columns = [_values(value) for value in fields.values()]
    return tuple(dict(zip(fields, row, strict=True)) for row in itertools.product(*columns))


def zipped(**fields: Any) -> tuple[Entry, ...]:
    """Returns all fields' first values, then their second ones, ...; a single value is repeated.

    Raises:
      UserError: two fields have different numbers of values.
    """
    columns = [_values(value) for value in fields.values()]
    lengths = {len(column) for column in columns if len(column) != 1}
    if len(lengths) > 1:
        sizes = ", ".join(f"{k} {len(c)}" for k, c in zip(fields, columns, strict=True))
        raise UserError(f"zipped fields must have equally many values, not {sizes}")
    length = lengths.pop() if lengths else 1
    rows = zip(*(c if len(c) == length else c * length for c in columns), strict=True)
    return tuple(dict(zip(fields, row, strict=True)) for row in rows)


def _values(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
