"""From lists of descriptions to clean pairs of texts, in splits that share no package.

A list has a stanza for each package, a description being a synopsis and paragraphs:

    Package: altree
    Description-md5: b6b21ff883122e1527c5ccc7bb5583bd
    Description-de: Programm zur Phylogenie-basierten Assoziationsanalyse
     Zeilen eines Absatzes
     .
     noch ein Absatz

The hash is that of the English description, in every language's list.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

SPLITS = ("train", "validation", "test")  # a text of several packages belongs to the first

# What stands before the name of the software, and what tells its packages apart.
_KINDS = frozenset(
    "lib fonts ghc github com gopkg golang google org x net node php pear perl python pypy r cran "
    "bioc ruby rust elpa gir gstreamer gir texlive tex wx qml module libreoffice openoffice "
    "hunspell myspell aspell hyphen mythes ifrench task science education".split()
)
_WORD = re.compile(r"\w+")
# A compound at the end of a line, but not the first half of "Ein- und Ausgabe".
_BROKEN = re.compile(r"(?<=\w)-\n(?!(?:and|or|to|und|oder|bzw|sowie|bis)\b)")
_BETWEEN = re.compile(r"(?<=[.!?]) (?=[A-ZÄÖÜ])")  # sentences
_BULLET = re.compile(r"[-*+•·o] ")


class Description(NamedTuple):
    """A package's description in one language.

    Attributes:
      package: its name.
      synopsis: one line.
      paragraphs: without line breaks; None for a list or a picture of characters.
    """

    package: str
    synopsis: str
    paragraphs: tuple[str | None, ...]


def parse(text: str, language: str) -> dict[str, Description]:
    """Returns the descriptions of a list by hash; of packages with the same one, the first."""
    found: dict[str, Description] = {}
    field = f"Description-{language}: "
    for stanza in text.split("\n\n"):
        fields, lines = {}, []
        for line in stanza.split("\n"):
            if line.startswith(field):
                fields["synopsis"] = " ".join(line.removeprefix(field).split())
            elif line.startswith(" "):
                lines.append(line[1:])
            elif ": " in line:
                name, value = line.split(": ", 1)
                fields[name] = value.strip()
        if {"Package", "Description-md5", "synopsis"} <= fields.keys():
            made = Description(fields["Package"], fields["synopsis"], _paragraphs(lines))
            found.setdefault(fields["Description-md5"], made)
    return found


def _paragraphs(lines: list[str]) -> tuple[str | None, ...]:
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == ".":
            parts.append([])
        else:
            parts[-1].append(line)
    return tuple(_paragraph(part) for part in parts if part)


def _paragraph(lines: list[str]) -> str | None:
    if any(line.startswith((" ", "\t")) or _BULLET.match(line) for line in lines):
        return None
    return " ".join(_BROKEN.sub("-", "\n".join(lines)).split())


def translations(
    english: dict[str, Description], german: dict[str, Description]
) -> dict[str, list[tuple[str, str]]]:
    """Returns by split the pairs of paragraphs, none twice, of those that translate each other.

    Kept are prose of 20 to 600 characters without addresses, of a length that a translation has,
    and that is indeed another text. After its paragraphs the first split, to be trained on, has
    their sentences and the synopses: from these the words are learnt sooner.
    """
    pairs, pieces = [], []
    for key, source in english.items():
        if (target := german.get(key)) is None:
            continue
        lone = [(source.synopsis, target.synopsis)]
        if len(source.paragraphs) == len(target.paragraphs):
            for pair in zip(source.paragraphs, target.paragraphs, strict=True):
                if _is_pair(pair, 20):
                    pairs.append((source.package, *pair, _key(pair[0])))
                    lone += _sentences(*pair)
        if _split_of(source.package) == 0:
            pieces += [pair for pair in lone if _is_pair(pair, 12)]
    found = _split(pairs)
    seen = {_key(english) for texts in found.values() for english, _ in texts}
    new = {_key(english): (english, german) for english, german in sorted(pieces)}
    found[SPLITS[0]] += [pair for key, pair in new.items() if key not in seen]
    return found


def _sentences(english: str, german: str) -> list[tuple[str, str]]:
    """Pairs of sentences, of texts that have as many, two or more."""
    parts = _BETWEEN.split(english), _BETWEEN.split(german)
    many = len(parts[0]) == len(parts[1]) > 1
    return list(zip(*parts, strict=True)) if many else []


def _is_pair(pair: tuple[str, str], least: int) -> bool:
    return all(_is_prose(text, least, 600) for text in pair) and _translates(*pair)


def summaries(english: dict[str, Description]) -> dict[str, list[tuple[str, str]]]:
    """Returns by split the pairs of long description, in one line, and synopsis.

    Kept are those of 100 to 1,500 characters, lists and addresses left out, whose synopsis has 12
    to 100 characters and is not a part of the text. Packages of one software often begin alike: of
    those with the same first paragraph there is one.
    """
    pairs = []
    for description in english.values():
        parts = [part for part in description.paragraphs if part and "://" not in part]
        text, synopsis = " ".join(parts), description.synopsis
        if not _is_prose(text, 100, 1500) or not _is_prose(synopsis, 12, 100):
            continue
        if _key(synopsis) not in _key(text):
            pairs.append((description.package, text, synopsis, _key(parts[0])))
    return _split(pairs)


def _is_prose(text: str | None, least: int, most: int) -> bool:
    if text is None or not least <= len(text) <= most or not text.isprintable():
        return False
    if "://" in text or "@" in text or "<trans>" in text:
        return False
    return sum(c.isalpha() or c == " " for c in text) >= 0.85 * len(text)


def _translates(english: str, german: str) -> bool:
    if not 0.6 <= len(german) / len(english) <= 2.0:
        return False
    words = _WORD.findall(english.lower())
    there = set(_WORD.findall(german.lower()))
    return sum(word in there for word in words) <= 0.5 * len(words)


def _key(text: str) -> str:
    """What two texts share that differ in nothing but case and punctuation."""
    return " ".join(_WORD.findall(text.casefold()))


def _split(pairs: Iterable[tuple[str, str, str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Returns (source, target) by split, from (package, source, target, key), each key once."""
    chosen: dict[str, tuple[int, str, str]] = {}
    for package, source, target, key in sorted(pairs):
        order = _split_of(package)
        if key not in chosen or order < chosen[key][0]:
            chosen[key] = order, source, target
    found: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for order, source, target in chosen.values():
        found[SPLITS[order]].append((source, target))
    # An order of their own: the first so many of a split are of any package.
    return {split: sorted(texts, key=_shuffle) for split, texts in found.items()}


def _split_of(package: str) -> int:
    """0 for 14, 1 and 2 for one sixteenth each of all software, a function of its name alone."""
    sixteenth = hashlib.blake2b(software(package).encode(), digest_size=1).digest()[0] % 16
    return max(0, sixteenth - 13)


def software(package: str) -> str:
    """Returns what packages of one software share: "foo" of libfoo2, foo-doc and python3-foo."""
    words = [word for word in re.split(r"[^a-z]+", package.removeprefix("lib")) if word]
    return next((word for word in words if word not in _KINDS), package)


def _shuffle(pair: tuple[str, str]) -> bytes:
    return hashlib.blake2b("\n".join(pair).encode(), digest_size=8).digest()
