"""Fields of files that other programs wrote: JSON objects and GGUF metadata, read by type.

Such a file may hold anything. What is read here either is of the type that was asked for, or is one
line that names file, field, value and what was expected.

A field that is null is as good as absent. NumPy's scalars and arrays are the numbers and lists that
they hold. A number may be written as text ("1e-05") or, where it is a whole one, with a fraction of
nothing (4096.0). NaN, infinity and what does not fit float32 or int32 are no numbers: nothing here
could compute with them. true and false are no numbers either; 0 and 1 are also booleans.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from speccascade.errors import UserError
from speccascade.inputs import field_types, text_files
from speccascade.inputs.field_types import LARGEST_INTEGER, Kind, show

_ABSENT: Any = object()


class Fields:
    """A mapping that is being read; it remembers which of its fields were asked for.

    A getter's `default` is what a field that is absent or null has; without one it must be there.
    `null` is what null means where it means something else than that. All getters raise UserError
    for a value of another type.
    """

    def __init__(self, values: Mapping[str, Any], source: str, path: str = ""):
        """Takes fields as they were found.

        Args:
          values: by name. What is none is refused.
          source: the file that they come from, for messages.
          path: where in the file, "rope_scaling"; empty for its outermost fields.
        """
        values = field_types.plain(values)
        if not isinstance(values, Mapping):
            raise UserError(f"{source} holds no JSON object but {show(values)}")
        self.values = {name: field_types.plain(value) for name, value in values.items()}
        self.source = source
        self._path = path
        self._asked: set[str] = set()

    def changed(self, changes: Mapping[str, Any]) -> "Fields":
        """Returns these fields with other values, none of them asked for."""
        return Fields({**self.values, **changes}, self.source, self._path)

    def has(self, name: str) -> bool:
        """Returns whether a field is there and not null; it counts as asked for."""
        self._asked.add(name)
        return self.values.get(name) is not None

    def integer(
        self,
        name: str,
        default: Any = _ABSENT,
        *,
        at_least: int = 0,
        at_most: int = LARGEST_INTEGER,
        null: Any = _ABSENT,
    ) -> int:
        """Returns a whole number between two limits, themselves included."""
        return self._one(name, field_types.integer(at_least, at_most), default, null)

    def number(
        self,
        name: str,
        default: Any = _ABSENT,
        *,
        above: float | None = None,
        at_least: float | None = None,
        null: Any = _ABSENT,
    ) -> float:
        """Returns a finite number; one that is written as a whole number stays an int (int32)."""
        return self._one(name, field_types.number(above, at_least), default, null)

    def boolean(self, name: str, default: Any = _ABSENT) -> bool:
        """Returns true or false."""
        return self._one(name, field_types.BOOLEAN, default)

    def text(self, name: str, default: Any = _ABSENT) -> str:
        """Returns a text that UTF-8 can write."""
        return self._one(name, field_types.TEXT, default)

    def choice(
        self, name: str, known: Mapping[str, Any] | Iterable[str], default: Any = _ABSENT
    ) -> Any:
        """Returns one of some texts, or what it stands for where `known` is a mapping."""
        self._asked.add(name)
        value = self.values.get(name)
        if value is None:
            if default is _ABSENT:
                raise self.wrong(name, "a text")
            return default
        if not isinstance(value, str) or value not in known:
            raise UserError(f"{self._where(name)}: not implemented, only {', '.join(known)}")
        return known[value] if isinstance(known, Mapping) else value

    def integers(
        self,
        name: str,
        default: Any = _ABSENT,
        *,
        at_least: int = 0,
        at_most: int = LARGEST_INTEGER,
        length: int | None = None,
        alone: bool = False,
    ) -> list[int]:
        """Returns a list of whole numbers.

        Args:
          name: the field.
          default: what it has where it is absent or null.
          at_least: the smallest that may be in it.
          at_most: the largest.
          length: how many there must be; None for any number.
          alone: whether a number that stands alone is a list of one.
        """
        return self._one(
            name, field_types.many(field_types.integer(at_least, at_most), length, alone), default
        )

    def numbers(
        self, name: str, default: Any = _ABSENT, *, length: int | None = None
    ) -> list[float]:
        """Returns a list of finite numbers, `length` of them."""
        return self._one(name, field_types.many(field_types.number(), length), default)

    def booleans(
        self, name: str, default: Any = _ABSENT, *, length: int | None = None
    ) -> list[bool]:
        """Returns a list of booleans, `length` of them."""
        return self._one(name, field_types.many(field_types.BOOLEAN, length), default)

    def texts(
        self,
        name: str,
        default: Any = _ABSENT,
        *,
        length: int | None = None,
        alone: bool = False,
    ) -> list[str]:
        """Returns a list of texts, `length` of them; see `integers` for `alone`."""
        return self._one(name, field_types.many(field_types.TEXT, length, alone), default)

    def choices(
        self,
        name: str,
        known: Mapping[str, Any],
        default: Any = _ABSENT,
        *,
        length: int | None = None,
    ) -> list:
        """Returns what each of a list of texts stands for, `length` of them."""
        return self._one(name, field_types.many(field_types.choice(known), length), default)

    def object(self, name: str, default: Any = _ABSENT) -> "Fields":
        """Returns the fields of an object within; {} as the default is one without any."""
        found = self._one(name, field_types.OBJECT, default)
        return self._inner(found, name) if isinstance(found, Mapping) else found

    def objects(self, name: str, default: Any = _ABSENT) -> list["Fields"]:
        """Returns the fields of each object of a list."""
        found = self._one(name, field_types.many(field_types.OBJECT), default)
        if found is default:
            return found
        return [self._inner(value, f"{name}[{i}]") for i, value in enumerate(found)]

    def each(self, name: str) -> "Fields":
        """Returns the values of a list or an object, each as a field; none where it is absent."""
        self._asked.add(name)
        value = self.values.get(name)
        if isinstance(value, list | tuple):
            return self._inner({str(i): item for i, item in enumerate(value)}, name)
        if value is None or isinstance(value, Mapping):
            return self._inner(value or {}, name)
        raise self.wrong(name, "a list or an object")

    def expect(self, name: str, *values: Any) -> None:
        """Checks that a field is absent, null or has one of `values`, all that is implemented.

        Where null is one of them, so is what is empty.
        """
        self._asked.add(name)
        value = self.values.get(name)
        if value is None or any(field_types.equal(value, known) for known in values):
            return
        if None in values and value in ({}, []):
            return
        wanted = " or ".join(repr(known) for known in values if known is not None)
        raise UserError(f"{self._where(name)}: not implemented, only {wanted or 'null'}")

    def ignore(self, *names: str) -> None:
        """Marks fields that say nothing of interest, whatever they hold."""
        self._asked.update(names)

    def unread(self) -> list[str]:
        """Returns the fields that nobody asked for, but for those that are empty or off (0)."""
        return sorted(
            self._path_of(name)
            for name, value in self.values.items()
            if name not in self._asked and value not in (None, False, "", [], {})
        )

    def wrong(self, name: str, expected: str) -> UserError:
        """Returns the error of a field whose value is none of those that are `expected`."""
        if self.values.get(name) is None:
            null = " (it is null)" if name in self.values else ""
            return UserError(f"{self.source} lacks {self._path_of(name)}{null}")
        return UserError(f"{self._where(name)}; it must be {expected}")

    def _inner(self, values: Mapping[str, Any], name: str) -> "Fields":
        return Fields(values, self.source, self._path_of(name))

    def _path_of(self, name: str) -> str:
        name = name if str(name).isprintable() else repr(name)
        return f"{self._path}.{name}" if self._path else name

    def _where(self, name: str) -> str:
        return f"{self.source} has {self._path_of(name)}={show(self.values[name])}"

    def _one(self, name: str, kind: Kind, default: Any, null: Any = _ABSENT) -> Any:
        self._asked.add(name)
        value = self.values.get(name)
        if value is None:
            if name in self.values and null is not _ABSENT:
                return null
            if default is not _ABSENT:
                return default
        try:
            return kind.of(value)
        except ValueError:
            raise self.wrong(name, kind.expected) from None

    @classmethod
    def read(cls, path: str | os.PathLike, source: str | None = None) -> Self:
        """Reads a file that holds a JSON object, with a byte order mark or without.

        Args:
          path: the file.
          source: what messages call it; None for its path.

        Raises:
          UserError: it is missing, is no JSON, or has a field twice with two values.
        """
        source = str(path) if source is None else source
        return cls.parse(text_files.read(path, source), source)

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Reads a JSON object as `read` does from what a file holds."""
        try:
            values = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_once)
        except _TwiceError as error:
            raise UserError(f"{source} has {error}; keep the one that is meant") from None
        except RecursionError:
            raise UserError(f"{source} is no JSON: it is nested too deeply") from None
        except ValueError as error:
            raise UserError(f"{source} is no JSON, perhaps cut short: {error}") from None
        return cls(values, source)


class _TwiceError(Exception):
    """A field stands twice in an object."""


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if value != found[name] and value == value:
                both = f"as {show(value)} and {show(found[name])}"
                raise _TwiceError(f"{show(name)} twice, {both}")
    return found
