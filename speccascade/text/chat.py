"""Chat templates: from messages to a text in which special tokens stand as ids.

A template is a Jinja program of the checkpoint. It writes special tokens as text, and so may a user
who wants to speak for somebody else. Before a template sees what messages contain, everything in
them that spells a special token is replaced by numbers that nobody can guess; after it ran, the
special tokens that are left are its own.
"""

import datetime
import functools
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from speccascade.errors import UserError
from speccascade.text.settings import Settings

_DIGITS = 38


def segments(
    settings: Settings, special: Mapping[str, int], messages: Sequence[Mapping]
) -> list[str | int]:
    """Renders messages, followed by what begins the model's answer.

    Args:
      settings: with the template.
      special: ids of the special tokens by how they are written.
      messages: `{"role": ..., "content": ...}`.

    Returns:
      Texts, and between them the ids of the template's special tokens.

    Raises:
      UserError: there is no template, or it fails.
    """
    if settings.template is None:
        raise UserError("this checkpoint has no chat template; give prompts without chat")
    if not messages:
        raise UserError("a conversation is empty; give it at least one message")
    guard = _Guard(special)
    hidden = [
        {k: v if k == "role" else guard.hide(v) for k, v in message.items()} for message in messages
    ]
    for message in messages:
        role = message.get("role")
        if not isinstance(role, str) or (special and guard.pattern.search(role)):
            raise UserError(f"the role {role!r} of a message must be a name, such as 'user'")
    try:
        text = _compile(settings.template, settings.date).render(
            messages=hidden,
            add_generation_prompt=True,
            tools=None,
            documents=None,
            **dict(settings.names),
        )
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template fails: {' '.join(str(error).split())}") from None
    except Exception as error:  # a template is a program, and may raise whatever it computes
        raise UserError(
            f"the chat template fails on these messages ({type(error).__name__}: {error})"
        ) from None
    if not special:
        return [guard.show(text)]
    parts = guard.pattern.split(text)
    return [special[part] if i % 2 else guard.show(part) for i, part in enumerate(parts) if part]


class _Guard:
    """Hides what spells special tokens."""

    def __init__(self, special: Mapping[str, int]):
        names = sorted(special, key=len, reverse=True)  # the longest that matches is meant
        self.pattern = re.compile("(" + "|".join(map(re.escape, names)) + ")")
        self._starts = {name[:n] for name in names for n in range(1, len(name))}
        self._ends = {name[n:] for name in names for n in range(1, len(name))}
        self._names = names
        self._longest = max(map(len, names), default=0)
        # Digits: they come through a template's filters as they are.
        self._nonce = str(secrets.randbelow(9 * 10 ** (_DIGITS - 1)) + 10 ** (_DIGITS - 1))
        self._hidden: dict[str, str] = {}

    def hide(self, value: Any) -> Any:
        """Returns a message's content, however nested, without special tokens' text."""
        if isinstance(value, str):
            return self._hide(value) if self._longest else value
        if isinstance(value, Mapping):
            return {k: self.hide(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(v) for v in value]
        return value

    def show(self, text: str) -> str:
        """Returns a text with everything that was hidden."""
        if not self._hidden:
            return text
        return re.sub(self._nonce + r"\d{8}", lambda m: self._hidden[m[0]], text)

    def _hide(self, text: str) -> str:
        text = self.pattern.sub(lambda m: self._stand_in(m[0]), text)
        # What stands at an edge could complete a special token with the template's text beside it.
        # Spaces are left outside: templates strip them.
        inside = text.strip()
        left, right = len(text) - len(text.lstrip()), len(text.rstrip())
        before, after = text[:left], text[right:]
        sizes = range(1, min(len(inside), self._longest) + 1)
        within = any(inside in name for name in self._names)
        if within or any(inside[:n] in self._ends for n in sizes):
            before += self._stand_in("")
        if within or any(inside[-n:] in self._starts for n in sizes):
            after = self._stand_in("") + after
        return before + inside + after if inside else text

    def _stand_in(self, text: str) -> str:
        """Returns a number that stands for `text`, the same for the same text."""
        for number, hidden in self._hidden.items():
            if hidden == text:
                return number
        number = f"{self._nonce}{len(self._hidden):08d}"
        self._hidden[number] = text
        return number


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """Writes JSON as templates expect it; Jinja's own would escape it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


@functools.lru_cache(maxsize=16)
def _compile(template: str, date: str | None) -> jinja2.Template:
    """Compiles a template in a sandbox, with what templates of checkpoints expect.

    What it calls now is midnight of `date`, so that a prompt is the same every day.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Callable] = {
        "raise_exception": _raise_exception,
    }
    if date is not None:
        functions["strftime_now"] = datetime.datetime.fromisoformat(date).strftime
    environment.globals.update(functions)
    return environment.from_string(template)
