"""Plain questions with accepted answers, from a file.

The file is JSON lines, one question a line:

    {"prompt": "Who wrote Hamlet?", "answers": ["Shakespeare"], "split": "test"}

A question without `split` belongs to the split that a hash of its prompt names.
"""

import hashlib
import json
import string
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
from etils import epath

from speccascade import paths
from speccascade.errors import UserError
from speccascade.tasks.example import Example

SPLITS = ("validation", "test")
_ARTICLES = frozenset(("a", "an", "the"))
_FIELDS = {"name", "path", "stop_strings"}


def normalise(text: str) -> list[str]:
    """The words of `text` as SQuAD compares them (Rajpurkar et al. 2016).

    Lower case, punctuation deleted (what it joined becomes one word), articles left out.
    """
    kept = (c for c in text.lower() if not _is_punctuation(c))
    return [word for word in "".join(kept).split() if word not in _ARTICLES]


def contains(text: str, answer: str) -> bool:
    """Whether the words of `answer` occur in `text` one after another, both normalised."""
    return f" {' '.join(normalise(answer))} " in f" {' '.join(normalise(text))} "


class Questions:
    """The task; see `speccascade.tasks.Task` for what its methods promise.

    Config fields: `path`, the file, relative to the working directory like every path that is
    given to a script; `stop_strings`, where an answer ends (none if absent). An example's id is
    the number of its line. There is nothing to train on.
    """

    name = "questions"
    aggregate = "mean"
    full_score = 1.0

    def __init__(self, config: ml_collections.ConfigDict):
        if unknown := sorted(set(config) - _FIELDS):
            raise UserError(
                f"task has unknown fields {', '.join(unknown)}; known: path, stop_strings"
            )
        if not config.get("path"):
            raise UserError("task.path is missing; give a file of questions, JSON lines")
        self.stop_strings = tuple(config.get("stop_strings", ()))
        self._examples = _read(config.path)

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        if split not in SPLITS:
            raise UserError(f"the questions have no split {split!r}; choose {' or '.join(SPLITS)}")
        return self._examples[split][:limit]

    def prompt(self, question: str) -> str:
        return question

    def score(self, text: str, example: Example) -> float:
        """1.0 if any accepted answer occurs in the text as whole words, else 0.0."""
        return float(any(contains(text, answer) for answer in example.reference))


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _read(path: str) -> dict[str, list[Example]]:
    """The examples by split, in the file's order."""
    try:
        text = epath.Path(paths.plain(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"task.path={path} cannot be read ({type(error).__name__}); it is relative to the "
            "working directory"
        ) from None
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    first: dict[str, int] = {}
    for number, line in _lines(text):
        try:
            prompt, answers, split = _question(line)
            if prompt in first:
                raise UserError(f"the prompt is that of line {first[prompt]}; keep one of them")
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
        first[prompt] = number
        examples[split].append(Example(number, prompt, answers[0], answers))
    return examples


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines; JSON strings may hold what else Python takes for the end of one."""
    return ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def _question(line: str) -> tuple[str, tuple[str, ...], str]:
    """(prompt, accepted answers, split) of one line."""
    try:
        fields: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"is no JSON ({error})") from None
    if not isinstance(fields, dict):
        raise UserError('must be an object, such as {"prompt": "...", "answers": ["..."]}')
    if unknown := sorted(fields.keys() - {"prompt", "answers", "split"}):
        raise UserError(f"unknown fields {', '.join(unknown)}; known: prompt, answers, split")
    prompt, answers = fields.get("prompt"), fields.get("answers")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError("prompt must be a text that is not empty")
    if not _are_answers(answers):
        raise UserError(
            "answers must be a list of at least one text, each with a word besides articles and "
            "punctuation"
        )
    split = fields.get("split", SPLITS[_half(prompt)])
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; choose {' or '.join(SPLITS)}")
    return prompt, tuple(answers), split


def _are_answers(answers: Any) -> bool:
    given = isinstance(answers, Sequence) and not isinstance(answers, str) and len(answers) > 0
    return given and all(isinstance(a, str) and normalise(a) for a in answers)


def _half(prompt: str) -> int:
    """0 or 1, a function of the prompt alone."""
    return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] % 2
