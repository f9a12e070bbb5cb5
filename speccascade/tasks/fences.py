"""Code in a chat model's answer: what stands in a fence of Markdown, or the answer itself."""

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from speccascade.tasks import thoughts

_PYTHON = frozenset(("", "python", "py", "python3", "py3", "ipython", "ipython3"))
_MARKDOWN = frozenset(("markdown", "md"))

# A sentence may stand before a fence that opens.
_OPEN = re.compile(
    r"(?P<indent>\s*)(?:(?:[^\s`~][^`]*)?(?P<ticks>`{3,})|(?P<tildes>~{3,}))"
    r"[ \t]*(?:\{?\.?(?P<language>[\w+#.-]+)[^`\n]*)?"
)
_CODE = re.compile(
    r"(?:\t| {2,})\s*[^\s`~]|(?:async )?def \w|class \w+.*:|import \w|from \S+ import|@\w"
)


class Block(NamedTuple):
    """A fenced block: its language in lower case, "" where it names none, and its lines."""

    language: str
    code: str


def blocks(text: str) -> list[Block]:
    """Returns the fenced blocks of a text in its order; one that does not end goes to the end."""
    found, lines = [], iter(text.split("\n"))
    for line in lines:
        if not (opened := _OPEN.fullmatch(line.rstrip())):
            continue
        fence = opened["ticks"] or opened["tildes"]
        code = "\n".join(_inside(lines, fence, len(opened["indent"].expandtabs(4))))
        language = (opened["language"] or "").lower()
        within = blocks(code) if language in _MARKDOWN else []
        found += within or [Block(language, code + "\n")]
    return found


def code(text: str, names: Iterable[str]) -> str:
    """Returns the code that answers a request for what `names` name.

    Of several blocks it is the first that defines one of the names, else the first of Python, else
    the first. An answer that begins with code ends where a fence follows; one without a fence is
    all code.
    """
    text, names = thoughts.answer(text).replace("\r\n", "\n"), list(names)
    first = next((line for line in text.split("\n") if line.strip()), "")
    begun = "\n".join(_inside(iter(text.split("\n")), "```", 0))
    if _CODE.match(first) or _defines_as_python(begun, names):
        return begun
    found = [block._replace(code=_flush(block.code, names)) for block in blocks(text)]
    if not found:
        return text
    defining = (block for block in found if any(defines(block.code, name) for name in names))
    python = (block for block in found if block.language in _PYTHON)
    return next(defining, next(python, found[0])).code


def _flush(code: str, names: Iterable[str]) -> str:
    """Returns a block's code from the margin on, if it then defines one of the names.

    In an item of a list it is further in than its fence; the body of a function stays as it is.
    """
    flush = textwrap.dedent(code)
    return flush if any(defines(flush, name) for name in names) else code


def _defines_as_python(code: str, names: Iterable[str]) -> bool:
    """Returns whether all of a text is Python and defines one of the names.

    So code may begin with a comment or a docstring, which look like Markdown's headings and words.
    """
    if not any(defines(code, name) for name in names):
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def defines(code: str, name: str) -> bool:
    """Returns whether code defines or assigns a name outside any other definition."""
    known = rf"^(?:(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b|{name}[ \t]*(?::[^=\n]+)?=(?!=))"
    return re.search(known, code, re.MULTILINE) is not None


def _inside(lines: Iterable[str], fence: str, indent: int) -> Iterator[str]:
    """Yields the lines up to the fence that closes, without the indentation of that which opened.

    It stands at most three spaces further in, so that one within a docstring closes nothing, or
    behind the last line of code.
    """
    mark = f"{fence[0]}{{{len(fence)},}}"
    closing = re.compile(rf"(?: {{0,{indent + 3}}}|\t{{0,{indent // 4}}}){mark}.*")
    behind = re.compile(rf"(?P<code>[^`~]*[^\s`~]){mark}\s*")
    margin = re.compile(rf" {{0,{indent}}}|\t{{0,{indent // 4}}}")
    for line in lines:
        if closing.fullmatch(line):
            return
        if last := behind.fullmatch(line):
            yield margin.sub("", last["code"], count=1)
            return
        yield margin.sub("", line, count=1)
