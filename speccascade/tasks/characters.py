"""One spelling for what is written in many: dashes, digits, spaces, fractions, LaTeX.

Numbers and words are found in texts that went through `canonical`, by the kinds of their
characters.
"""

import functools
import re
import unicodedata

# Minus signs and hyphens become "-", longer dashes "–": the latter part words, and both are signs.
_SPELLINGS = {
    **dict.fromkeys("‐‑‒−", "-"),
    **dict.fromkeys("–—―", "–"),
    **dict.fromkeys("’‘ʼ′´", "'"),
    **dict.fromkeys("⁄∕", "/"),
    **dict.fromkeys("⋅∙", "·"),
    **dict.fromkeys("≤≥±", "<"),
    "٫": ".",
    "٬": ",",
    "\u200b": " ",
}
_SUPERSCRIPTS = "⁰¹²³⁴-⁹"
_POWER = re.compile(rf"(?<=\d)[⁺⁻]?[{_SUPERSCRIPTS}]+(?![{_SUPERSCRIPTS}⁄])")
_FRACTION = re.compile(rf"(?<=\d)\s*(?=[¼-¾⅐-⅞↉]|[{_SUPERSCRIPTS}]+⁄)")
_GROUPS = re.compile(r"(?<![\d.,'])\d{1,3}(?:([\u00a0\u2006-\u2009\u202f])\d{3})(?:\1\d{3})*(?!\d)")
_TIMES_POWER = re.compile(r"(?<=\d)\s*([x×*·])\s*(?=10\^)")

_LATEX_FRACTION = re.compile(
    r"(\d)?\\[cdt]?frac\s*(?:\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))"
)
_LATEX = tuple(
    (re.compile(pattern), shown)
    for pattern, shown in (
        (r"\{,\}", ","),
        (r"\\!", ""),
        (r"(?<=\d)\\[,;: ](?=\d)", "\u2009"),
        (r"\\times(?![a-zA-Z])", "×"),
        (r"\\cdot(?![a-zA-Z])", "·"),
        (r"\\div(?![a-zA-Z])", "÷"),
        (r"\\approx(?![a-zA-Z])", "≈"),
        (r"\\(?:leq?|geq?|lt|gt|pm)(?![a-zA-Z])", "<"),
        (r"\^\s*\{?\\circ\}?", "°"),
        # What makes another number of the one beside it.
        (r"\\(?:sqrt|binom|log|ln|exp|sin|cos|tan|overline|bar|dot)(?![a-zA-Z])", "√"),
        (r"\\(?:pi|infty|theta|alpha|beta)(?![a-zA-Z])", "×"),
        (r"\^\s*\{\s*([+-]?\d+)\s*\}", r"^\1"),
    )
)
_LATEX_COMMAND = re.compile(r"\\[a-zA-Z]+\s*\{([^{}\\]*)\}")
_LATEX_REST = re.compile(r"\\(?:[a-zA-Z]+|[()\[\]\s,;:])?")

# Scripts that put no spaces between words, or write particles onto them.
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1100, 0x11FF),  # Hangul letters
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x309F),  # Hiragana
    (0x3130, 0x318F),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA960, 0xA97F),
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_KATAKANA = range(0x30A0, 0x3100)
_MEANING_THEMSELVES = frozenset("+-–.,:/'_^*×·$%#&<)]")


def canonical(text: str) -> str:
    """Returns a text with one spelling of every number and every word, but for their case.

    ASCII stays as it is, but for LaTeX; "½" becomes "1/2", "10²" "10^2", a space that parts
    thousands and no words "'", any currency "$", any digit one of "0" to "9".
    """
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    if not text.isascii():
        text = _FRACTION.sub(" ", text)
        text = _POWER.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
        text = _GROUPS.sub(lambda m: m[0].replace(m[1], "'"), text)
        text = "".join(map(_spelling, unicodedata.normalize("NFKC", text)))
    return _TIMES_POWER.sub(r"\1", text)


def kinds(text: str) -> str:
    """Returns a character for each of a canonical text, by which patterns can tell its kind.

    "0" is a digit, "w" a letter, "m" a mark on one, "c" a letter of a script without spaces, "k"
    Katakana, "s" white space, "n" a line's end, "o" a symbol that is no punctuation, " " what means
    nothing; what may be a part of a number or a word stands for itself.
    """
    return "".join(map(_kind, text))


def _without_latex(text: str) -> str:
    text = _LATEX_FRACTION.sub(_shown_fraction, text)
    for pattern, shown in _LATEX:
        text = pattern.sub(shown, text)
    before = None
    while before != text:  # from the innermost braces out
        before, text = text, _LATEX_COMMAND.sub(r" \1 ", text)
    return _LATEX_REST.sub(lambda m: " " if len(m[0]) > 1 else "", text)


def _shown_fraction(match: re.Match) -> str:
    digit, *parts = match.groups()
    over, under = (part for part in parts if part is not None)
    return f"{digit} {over}/{under}" if digit else f"{over}/{under}"


@functools.lru_cache(maxsize=1 << 14)
def _spelling(character: str) -> str:
    if (known := _SPELLINGS.get(character)) is not None:
        return known
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F:
        return ""  # joiners and the like, which nobody sees
    return "$" if category == "Sc" else character


@functools.lru_cache(maxsize=1 << 14)
def _kind(character: str) -> str:
    if character in _MEANING_THEMSELVES:
        return character
    if character == ">":
        return "<"
    category, code = unicodedata.category(character), ord(character)
    if category == "Nd":
        return "0"
    if character.isspace():
        return "n" if character == "\n" else "s"
    if category[0] == "M":
        return "m"
    if category[0] in "LN":
        if code in _KATAKANA:
            return "k"
        return "c" if any(first <= code <= last for first, last in _SPACELESS) else "w"
    return "o" if category in ("So", "Sm") and code > 0x7F else " "
