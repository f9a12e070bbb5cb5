"""Whether a text gives an answer: words are compared with words and numbers with numbers.

SQuAD's way of comparing (Rajpurkar et al. 2016) deletes all punctuation; it takes -5 for 5, 1.5 for
15 and 3.14 for 314, and finds no word in a script that puts no spaces between them.
"""

import re
from fractions import Fraction

from speccascade.tasks.characters import canonical
from speccascade.tasks.numbers import Piece, number, pieces

_ARTICLES = frozenset(("a", "an", "the"))
_JOINER = re.compile(r"(?<!\d)['.&_-]|['.&_-](?!\d)")


def terms(text: str) -> list[str | Fraction]:
    """Returns the words and the numbers of a text in its order, articles left out.

    Words are casefolded and lose apostrophes, hyphens and full stops ("U.S." is "us"). What has
    digits and is no number is a word ("1990s", "10:30"). Of a script that puts no spaces between
    words each character is one.
    """
    found = map(_term, pieces(canonical(text)))
    return [term for term in found if term not in _ARTICLES]


def contains(text: str, answer: str) -> bool:
    """Returns whether the terms of `answer` occur in `text` one after another."""
    return any(_occurs(wanted, found) for found in _readings(text) for wanted in _readings(answer))


def _readings(text: str) -> list[list[str | Fraction]]:
    """Returns a text's terms and, of one that is a number as a whole ("1 800"), that number."""
    running, whole = terms(text), number(text)
    return [running] if whole is None or running == [whole] else [running, [whole]]


def _occurs(wanted: list[str | Fraction], found: list[str | Fraction]) -> bool:
    size = len(wanted)
    return any(found[i : i + size] == wanted for i in range(len(found) - size + 1)) and size > 0


def _term(piece: Piece) -> str | Fraction:
    if piece.value is not None:
        return piece.value
    text = piece.text.replace("–", "-").casefold().replace("i\u0307", "i")  # of the Turkish İ
    # What stands between digits stays: 10:30 is not 1030.
    return text.replace("'s", "s") if piece.is_number else _JOINER.sub("", text)
