"""Short answers compared with accepted ones, each benchmark's own way of reading them.

These are the official scripts' rules to the letter; `questions.normalise` is more lenient with
punctuation beyond ASCII and is for questions of one's own.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETED = str.maketrans("", "", string.punctuation)
_BLANKED = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))

Normalise = Callable[[str], str]


def squad(text: str) -> str:
    """Normalises as SQuAD 1.1 and 2.0 do: lower case, no ASCII punctuation, no articles."""
    return _words(text.lower().translate(_DELETED))


def trivia_qa(text: str) -> str:
    """Normalises as TriviaQA does: as SQuAD, but punctuation parts words, quotation marks too."""
    return _words(text.lower().translate(_BLANKED)).strip()


def _words(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(text: str, accepted: Iterable[str], normalise: Normalise = squad) -> float:
    """Returns 1.0 if the text is one of the accepted answers, all of them normalised, else 0.0."""
    return float(normalise(text) in {normalise(answer) for answer in accepted})


def f1(text: str, accepted: Iterable[str], normalise: Normalise = squad) -> float:
    """Returns the largest F1 over the accepted answers of the words that text and answer share.

    Where either has no words, it is 1.0 if neither has and 0.0 otherwise, as in SQuAD 2.0.
    """
    words = normalise(text).split()
    return max(_f1(words, normalise(answer).split()) for answer in accepted)


def _f1(words: list[str], answer: list[str]) -> float:
    if not words or not answer:
        return float(words == answer)
    same = sum((Counter(words) & Counter(answer)).values())
    return 2.0 * same / (len(words) + len(answer))
