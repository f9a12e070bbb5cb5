"""Numbers as people and models write them, read exactly.

"1,800", "1'000", ".5", "-$3", "1/2", "3 1/2", "1e3", "2 × 10^3", "10²", "½" and "5%", which is 5,
in any script's digits. What may be no number is none: "12:30", "1,8", "5-6", "1.800,5", "0x10".
"""

import re
from fractions import Fraction
from typing import NamedTuple

from speccascade.tasks.characters import canonical, kinds

# No task has numbers with more digits; 1e999999999 would fill the memory.
_MAX_DIGITS = 300

# Patterns of kinds, see `characters.kinds`. What belongs to a number or spoils it is taken whole:
# "1.2.3" is one piece that cannot be read, not two that can.
_JOINED = r"(?:[.,:/'_^*×·+–-]+|%?[–-]\$?)(?=0)"
_SIGN = r"(?:(?<![0wckm)\]%+–-])[+–-]+|(?<![^sn])<)"
_NUMBER = (
    rf"{_SIGN}?(?:\$s?[+–-]*)?"
    rf"(?:0{{1,3}}s0+/0+(?!{_JOINED}|[0wm])|(?:(?<![0wckm).])\.)?0(?:[0wm]|'(?=w)|{_JOINED})*)"
)
# A letter's plus signs and hash are its own: C++, C#, A+.
_WORD = rf"w(?:[wm0]|[.'&_-](?=w)|['&_-](?=0)|(?<=0){_JOINED})*(?:(?<=w)(?:\+\+|[+#](?![w0+#])))?"
_PIECE = re.compile(rf"(?P<number>{_NUMBER})|{_WORD}|cm*|[km]+|o")

_WHOLE = "(?:" + "|".join([r"\d+", *(rf"[1-9]\d{{0,2}}(?:{c}\d{{3}})+" for c in ",'_")]) + ")"
_VALUE = re.compile(
    r"(?P<sign>[+–-]?)(?:(?:(?P<whole>\d+)\s)?(?P<over>\d+)/(?P<under>\d+)"
    r"|(?P<base>\d+)\^(?P<power>[+-]?\d+)"
    rf"|(?P<decimal>{_WHOLE}(?:\.\d+)?|\.\d+)(?:(?:e|[x×*·]10\^)(?P<exponent>[+-]?\d+))?)"
)


class Piece(NamedTuple):
    """A number, a word or a symbol of a text.

    Attributes:
      text: as the canonical text has it.
      start: where it begins there.
      is_number: whether it is written like a number.
      value: of a number; None where it cannot be read as one.
    """

    text: str
    start: int
    is_number: bool
    value: Fraction | None


def pieces(text: str) -> list[Piece]:
    """Returns the numbers, words and symbols of a text that `canonical` returned."""
    found = []
    for match in _PIECE.finditer(kinds(text)):
        part, is_number = text[slice(*match.span())], match["number"] is not None
        found.append(Piece(part, match.start(), is_number, _value(part) if is_number else None))
    return found


def number(text: str) -> Fraction | None:
    """Returns the number that a whole text is, None where it is more, less or no number.

    Marks around it are none of it (brackets, stars, currency, percent, a full stop), and plain
    spaces may part its thousands.
    """
    text = canonical(text).strip(" \t\r\n*_`\"'“”([{$#~≈=:").rstrip(")]}%°.,;!?$*_`\"'“”: \t\r\n")
    text = re.sub(r"^([+–-])\s+", r"\1", text)
    text = re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", text)
    if re.fullmatch(r"[+–-]?\$?\d{1,3}(?: \d{3})+(?:\.\d+)?", text):
        text = text.replace(" ", "'")
    return _value(text)


def _value(text: str) -> Fraction | None:
    """Returns the value of what is written like one number."""
    text = re.sub(r"^([+–-]?)\$\s?", r"\1", text).lower()
    match = _VALUE.fullmatch(text)
    if match is None or sum(map(str.isdigit, text)) > _MAX_DIGITS:
        return None
    if match["over"]:
        over, under = int(match["over"]), int(match["under"])
        if not under or (match["whole"] and over >= under):
            return None
        value = int(match["whole"] or 0) + Fraction(over, under)
    elif match["base"]:
        base, power = int(match["base"]), int(match["power"])
        if abs(power) * len(match["base"]) > _MAX_DIGITS or (not base and power < 0):
            return None
        value = Fraction(base) ** power
    else:
        exponent = int(match["exponent"] or 0)
        if abs(exponent) > _MAX_DIGITS:
            return None
        value = Fraction(re.sub("[,'_]", "", match["decimal"])) * Fraction(10) ** exponent
    return value if match["sign"] in ("", "+") else -value
