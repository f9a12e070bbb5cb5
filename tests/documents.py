"""What README, CONTRIBUTING and docs hold between fences, and the commands in it.

A fence is *quick* where `<!-- quick -->` stands on the line before it: the slow tests run it.
"""

import ast
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^(<!-- quick -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELLS = ("bash", "sh")
_STARTS = ("python", "bash", "speccascade")


@dataclasses.dataclass(frozen=True)
class Fence:
    """A fenced block: `where` it is, its `language` ("" for none), its text."""

    where: str
    language: str
    text: str
    quick: bool


@dataclasses.dataclass(frozen=True)
class Command:
    where: str
    words: tuple[str, ...]


def fences() -> list[Fence]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            quick, language, inside = match.groups()
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Fence(f"{page.relative_to(ROOT)}:{line}", language, inside, bool(quick)))
    return found


def commands() -> Iterator[Command]:
    """Yields every command: of fences for a shell, of code in a line of text, of the docstrings of
    scripts and configs."""
    for fence in fences():
        if fence.language in _SHELLS:
            for line in _lines(fence.text):
                yield from _command(fence.where, line)
    for page in PAGES:
        text = _FENCE.sub("", page.read_text())
        for code in re.findall(r"`([^`\n]+)`", text):
            if code.split()[0] in _STARTS and len(code.split()) > 1:
                yield from _command(str(page.relative_to(ROOT)), code)
    for path in (*ROOT.glob("scripts/*.py"), *ROOT.glob("configs/**/*.py")):
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        for line in _lines(told):
            if line.startswith(" ") and line.split()[0] in _STARTS:
                yield from _command(str(path.relative_to(ROOT)), line)


def _lines(text: str) -> list[str]:
    return [line for line in text.replace("\\\n", " ").split("\n") if line.strip()]


def _command(where: str, line: str) -> Iterator[Command]:
    words = shlex.split(line, comments=True)
    if words:
        yield Command(where, tuple(words))
