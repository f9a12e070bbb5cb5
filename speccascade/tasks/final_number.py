"""The number behind "####" at the end of a worked answer, as GSM8K writes it."""

import re
from fractions import Fraction

from speccascade.tasks import thoughts
from speccascade.tasks.characters import canonical
from speccascade.tasks.numbers import Piece, number, pieces

_MARK = re.compile("#{4,}")
_CLAUSE_END = re.compile(r"[.;!?,]+(?=\s|$)|\s[(\[]")
_TAG = re.compile(r"<[/|]?[a-zA-Z][^<>]*>")
_SQUARE_OR_CUBIC = re.compile(r"(?<=[^\W\d_])\^?[23](?![\w.,])")
_EQUALS = re.compile("[=≈≃→⇒]")
_SCALES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_SCALE = re.compile(rf"\s*-?({'|'.join(_SCALES)})s?(?![^\W_])", re.IGNORECASE)
_UNIT = re.compile(r"(.*\d)([^\W\d_]+)", re.DOTALL)
# Letters behind digits that say something else than a unit.
_NO_UNITS = frozenset(("π", "e", "x", "k", "K", "M", "B", "b", "bn", "T", "am", "pm", "AM", "PM"))
# What is one side of an operation, of a range or of a comparison is not the number itself.
_OPERATOR_BEFORE = re.compile(r"[+/×÷·^<>√–-]\s*[${(]*\s*$|\s\*\s*$|(?<!\w)π\s*$")
_OPERATOR_AFTER = re.compile(r"\s*[+×÷·^<>√]|\s*π(?!\w)|\s+[*/]\s|\s*[–-]\s*\$?\d")


def final_number(text: str) -> int | float | None:
    """Returns the number after the last "####" that something follows.

    The field is the rest of the line or, where that has no digit, the first line after it if that
    is a number and nothing else. Words may stand around the number ("about 18 apples"), a sum
    before it ("3 + 4 = 7"); of several numbers none is taken, unless a comma, a full stop or a
    bracket parts them: then the first.

    Returns:
      A whole number as it is, another one as the nearest float; None where there is none, where it
      cannot be told which is meant, or where a float would be another number.
    """
    for field in reversed(_MARK.split(thoughts.answer(text))[1:]):
        if not field.strip():
            continue
        line, _, further = field.partition("\n")
        if not any(map(str.isnumeric, line)):
            value = number(further.lstrip().partition("\n")[0])
        else:
            value = _of_line(line)
        return None if value is None else _json_ready(value)
    return None


def _of_line(line: str) -> Fraction | None:
    line = _TAG.sub(" ", line)
    if (value := number(line)) is not None:
        return value
    text = canonical(line).lstrip("*_`([{\"' \t")
    clause = _SQUARE_OR_CUBIC.sub("", _CLAUSE_END.split(text)[0].strip())
    sides = [side for side in _EQUALS.split(clause) if any(map(str.isdigit, side))]
    if not sides:
        return None
    if (value := number(sides[-1])) is not None:
        return value
    # A word that ends in a digit, such as A-5, is no number, and leaves open which is meant.
    found = [piece for piece in pieces(sides[-1]) if piece.is_number or piece.text[-1].isdigit()]
    return _in_context(found[0], sides[-1]) if len(found) == 1 else None


def _in_context(piece: Piece, side: str) -> Fraction | None:
    """Returns the value of the only number of a side of an equation."""
    before, after = side[: piece.start], side[piece.start + len(piece.text) :]
    if _OPERATOR_BEFORE.search(before.rstrip("*_`")) or _OPERATOR_AFTER.match(after.lstrip("*_`")):
        return None
    value = piece.value
    if value is None and (match := _UNIT.fullmatch(piece.text)) and match[2] not in _NO_UNITS:
        value = number(match[1])
    if value is not None and (scale := _SCALE.match(after)):
        value *= _SCALES[scale[1].lower()]
    return value


def _json_ready(value: Fraction) -> int | float | None:
    try:
        nearest = float(value)
    except OverflowError:
        return None
    if value.denominator == 1:
        return int(value)
    return None if nearest.is_integer() else nearest
