"""What the benchmarks have in common: problems made of rows, prompts of worked examples or T5's."""

import functools
import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from speccascade.errors import UserError
from speccascade.inputs import optional_fields, values
from speccascade.tasks import columns
from speccascade.tasks.example import Example
from speccascade.text.prompt import Prompt

_FIELDS = ("format", "path", "revision", "seed", "shots")
_WORD = re.compile(r"\S+")
_SPLIT_IDS = 10**8  # more than any split has rows


class Problem(NamedTuple):
    """What a row is about.

    Attributes:
      question: what is asked, without any wording around it.
      answer: what a model should write.
      reference: what `score` compares with, JSON-ready.
    """

    question: str
    answer: str
    reference: Any


class Part(NamedTuple):
    """Where a split comes from.

    Attributes:
      of: the data set's own name of a split.
      share: which sixteenths of it, by a hash of the question: those that have no split of their
        own for validation or test (or one without answers) give a part of another.
    """

    of: str
    share: range = range(16)


class BenchmarkTask:
    """A task whose problems are rows; see `speccascade.tasks.Task` for what its methods promise.

    Config fields, none of them needed: `path`, a directory to read in place of the hub, see
    `columns.read`; `revision` of the hub's data set; `format`, "few_shot" (the default), "t5", the
    bare question behind T5's prefix for it, or a further one of the task; `shots`, how many worked
    examples come first, drawn from the training rows by `seed` (0); where the task has it,
    `max_words`, after which a text to be summarised is cut off.

    A task is a class that sets the attributes and defines `problem` and `score`, and `may_cut`
    where its questions hold a long text.

    Attributes:
      name: in the registry.
      hub: the data set.
      parts: by split.
      shots: worked examples, if the config does not say.
      aggregate: see `tasks.aggregate`.
      full_score: see `tasks.Task`.
      instruction: what a few-shot prompt begins with.
      template: the wording around a question, "{}" in its place.
      separator: between a worked example and what follows it.
      stops: where an answer to a few-shot prompt ends.
      prefix: T5's, None where it has none.
      formats: that it has.
      max_words: if the config does not say; None where a question is not cut by words.
    """

    name: str
    hub: columns.Hub
    parts: Mapping[str, Part]
    shots: int
    aggregate = "mean"
    full_score = 1.0
    scored_with: tuple[str, ...] = ()
    instruction = ""
    template = "Question: {}\nAnswer:"
    separator = "\n\n"
    stops: tuple[str, ...] = ("\n",)
    prefix: str | None = None
    formats: tuple[str, ...] = ("few_shot", "t5")
    max_words: int | None = None

    def __init__(self, config: ml_collections.ConfigDict):
        fields = _FIELDS if self.max_words is None else (*_FIELDS, "max_words")
        optional_fields.check("task", config, ("name", *fields))
        self._path = config.get("path")
        self._revision = config.get("revision")
        self._seed = values.whole("task.seed", config.get("seed", 0))
        self._format = config.get("format", "few_shot")
        if self._format not in self.formats:
            raise UserError(f"task.format={self._format!r} must be {' or '.join(self.formats)}")
        if self._format == "t5" and self.prefix is None:
            raise UserError(f"{self.name} has no T5 prefix; set task.format='few_shot'")
        default = 0 if self._format == "t5" else self.shots
        self._num_shots = values.whole("task.shots", config.get("shots", default), 0)
        if self._format == "t5" and self._num_shots:
            raise UserError("task.shots must be 0 with T5's format")
        self._max_words = config.get("max_words", self.max_words)
        if self._max_words is not None:
            self._max_words = values.whole("task.max_words", self._max_words, 1)
        self.stop_strings = self.stops if self._format == "few_shot" else ()

    def problem(self, row: Any) -> Problem | None:
        """The problem of a row, read by `columns.text` and `texts`; None leaves it out."""
        raise NotImplementedError

    def score(self, text: str, example: Example) -> float | tuple[float, ...]:
        raise NotImplementedError

    def may_cut(self, question: str) -> tuple[int, int] | None:
        """Returns where a text begins and ends that may lose its end where a prompt is too long.

        None where all of the question is needed. Instruction and worked examples always are.
        """
        return None

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        if split not in self.parts:
            raise UserError(
                f"{self.name} has no split {split!r}; choose from: {', '.join(self.parts)}"
            )
        part = self.parts[split]
        found: list[Example] = []
        if limit is not None and limit < 1:
            return found
        for number, problem in self._problems(part.of):
            if _sixteenth(problem.question) not in part.share:
                continue
            prompt, answer = self.prompt(problem.question), self._shown(problem)
            found.append(Example(self._id(part.of, number), prompt, answer, problem.reference))
            if len(found) == limit:
                break
        return found

    def prompt(self, question: str) -> str:
        question = self._cut(question)
        if self._format == "t5":
            before, after = self.prefix, ""
        else:
            before, _, after = self.template.partition("{}")
            before = self._head + before
        whole, part = before + question + after, self.may_cut(question)
        if part is None:
            return whole
        return Prompt(whole, *(len(before) + at for at in part))

    def _cut(self, question: str) -> str:
        if self._max_words is None:
            return question
        ends = [word.end() for word in itertools.islice(_WORD.finditer(question), self._max_words)]
        return question[: ends[-1]] if ends else question

    @functools.cached_property
    def _head(self) -> str:
        """All of a few-shot prompt that comes before the question."""
        shots = [
            self.template.format(self._cut(problem.question))
            + self._shown(problem)
            + self.separator
            for problem in self._shots()
        ]
        return self.instruction + "".join(shots)

    def _shown(self, problem: Problem) -> str:
        """The answer to a problem as it stands behind the prompt."""
        return self._lead() + problem.answer

    def _lead(self) -> str:
        """What parts the answer from a prompt that does not end in white space."""
        return "" if self._format == "t5" or self.template[-1].isspace() else " "

    def _shots(self) -> list[Problem]:
        if not self._num_shots:
            return []
        part = self.parts["train"]
        rows = self._rows(part.of)
        rng = random.Random(f"{self._seed}/shots")
        shots: list[Problem] = []
        seen: set[int] = set()
        while len(shots) < self._num_shots and len(seen) < len(rows):
            number = rng.randrange(len(rows))
            if number in seen:
                continue
            seen.add(number)
            problem = self._problem(part.of, number, rows[number])
            if problem and _sixteenth(problem.question) in part.share:
                shots.append(problem)
        if len(shots) < self._num_shots:
            raise UserError(
                f"the training rows of {self.name} give {len(shots)} worked examples; lower "
                f"task.shots (now {self._num_shots}) to that"
            )
        return shots

    def _rows(self, of: str) -> Sequence[Any]:
        return columns.read(self.hub, self._path, self._revision, of)

    def _problems(self, of: str) -> Iterator[tuple[int, Problem]]:
        """Yields the problems of the data set's split `of`, each with its row's number."""
        for number, row in enumerate(self._rows(of)):
            if problem := self._problem(of, number, row):
                yield number, problem

    def _problem(self, of: str, number: int, row: Mapping[str, Any]) -> Problem | None:
        try:
            return self.problem(row)
        except UserError as error:
            reason = str(error)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"row {number} of {self._path or self.hub.id} ({of}) does not have the columns of "
            f"{self.hub.id} ({reason})"
        )

    def _id(self, of: str, number: int) -> int:
        order = sorted({part.of for part in self.parts.values()})
        return order.index(of) * _SPLIT_IDS + number


def _sixteenth(question: str) -> int:
    """0..15, a function of the question alone."""
    return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] % 16
