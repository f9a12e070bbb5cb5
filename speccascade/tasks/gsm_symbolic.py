"""GSM8K-style word problems with worked answers, from the package reasoning-gym.

Its `gsm_symbolic` has a hundred templates, each a generator of problems. A config chooses some
templates and an upper bound on every number in a problem. A problem belongs to the split that a
hash of its question names, so that no two splits can share one, however many are generated.
"""

import functools
import hashlib
import importlib.util
import pathlib
import random
import re
import sys
import types
from collections.abc import Iterator

import ml_collections

from speccascade.errors import UserError
from speccascade.inputs import optional_fields, values
from speccascade.tasks.example import Example
from speccascade.tasks.final_number import final_number
from speccascade.tasks.numbers import number

# Parts in sixteen of all problems, and the first id of each split.
_SPLITS = {"train": (range(0, 14), 0), "validation": ((14,), 10**8), "test": ((15,), 2 * 10**8)}
# So many draws in a row of each template, without a problem that is new, and there is none.
_FRUITLESS = 5000
# Every one that a problem shows, in whatever it is a part of.
_SHOWN = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class GsmSymbolic:
    """The task; see `speccascade.tasks.Task` for what its methods promise.

    Config fields: `seed`; `templates`, ids of reasoning-gym's templates; `max_number`, the
    largest number that may occur in a question or its worked answer; `train_size`,
    `validation_size` and `test_size`, distinct problems per split.
    """

    name = "gsm_symbolic"
    stop_strings = ()
    aggregate = "mean"
    full_score = 1.0
    scored_with = ()

    def __init__(self, config: ml_collections.ConfigDict):
        needed = ("templates", "max_number", "seed", *(f"{split}_size" for split in _SPLITS))
        values.section("task", config, needed, "configs/gsm_symbolic.py")
        optional_fields.check("task", config, ("name", *needed))
        self._templates = tuple(values.wholes("task.templates", config.templates))
        self._max_number = values.whole("task.max_number", config.max_number, 1)
        self._seed = values.whole("task.seed", config.seed)
        self._sizes = {
            split: values.whole(f"task.{split}_size", config[f"{split}_size"], 0)
            for split in _SPLITS
        }
        known, self._generators = _templates()
        unknown = [t for t in self._templates if t not in known]
        if unknown or not self._templates:
            raise UserError(
                f"task.templates must be working templates of reasoning-gym, not "
                f"{unknown or 'none'}; choose from {sorted(known)}"
            )

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        if split not in _SPLITS:
            raise UserError(f"unknown split {split!r}; known: {', '.join(_SPLITS)}")
        size = self._sizes[split] if limit is None else min(limit, self._sizes[split])
        parts, first_id = _SPLITS[split]
        out: list[Example] = []
        seen: set[str] = set()
        problems, fruitless = self._problems(split), 0
        while len(out) < size:
            question, answer, reference = next(problems)
            if question in seen or _part(question) not in parts:
                fruitless += 1
                if fruitless > _FRUITLESS * len(self._templates):
                    raise UserError(
                        f"task.{split}_size={self._sizes[split]}: templates {self._templates} have "
                        f"{len(out)} problems of that split with all numbers up to "
                        f"{self._max_number}; lower it, or raise task.max_number"
                    )
                continue
            fruitless = 0
            seen.add(question)
            out.append(Example(first_id + len(out), self.prompt(question), answer, reference))
        return out

    def prompt(self, question: str) -> str:
        return question + "\n"

    def score(self, text: str, example: Example) -> float:
        """1.0 if the number after the last "####" equals the reference as a number."""
        return float(final_number(text) == example.reference)

    def _problems(self, split: str) -> Iterator[tuple[str, str, int | float]]:
        """Endless stream of (question, worked answer, final number), the templates in turn."""
        rejected_in_a_row = 0
        draw = 0
        while True:
            for template in self._templates:
                rng = random.Random(f"{self._seed}/{split}/{template}/{draw}")
                problem = _read(self._generators[template](rng, 1.0))
                if problem is None or _largest(problem) > self._max_number:
                    rejected_in_a_row += 1
                    if rejected_in_a_row > 1000 * len(self._templates):
                        raise UserError(
                            f"no problem of templates {self._templates} has all numbers up to "
                            f"{self._max_number}; raise task.max_number"
                        )
                    continue
                rejected_in_a_row = 0
                yield problem
            draw += 1


def _part(question: str) -> int:
    """0..15, a function of the question alone."""
    return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] % 16


def _largest(problem: tuple[str, str, int | float]) -> float:
    shown = _SHOWN.findall(problem[0] + " " + problem[1])
    return max(float(text.replace(",", "")) for text in shown)


def _read(item: dict) -> tuple[str, str, int | float] | None:
    """(question, worked answer, final number); None where the two answers disagree."""
    metadata = item["metadata"]
    nested = [m for m in metadata.values() if isinstance(m, dict)]
    answers = [m["answer_cot"] for m in (metadata, *nested) if "answer_cot" in m]
    answer = answers[0].strip() if answers else ""
    final = final_number(answer)
    if final is None or final != number(str(item["answer"])):
        return None
    return item["question"].strip(), answer, final


_PACKAGES = (
    "reasoning_gym",
    "reasoning_gym.arithmetic",
    "reasoning_gym.arithmetic.gsm_symbolic",
)


@functools.cache
def _templates() -> tuple[frozenset[int], dict]:
    """Returns the templates that work and every template's generator, from reasoning-gym.

    Its packages import all of its hundred generators, and matplotlib and sympy with them: a second
    of every start. So they stand empty while the modules of this one are read.
    """
    found = importlib.util.find_spec("reasoning_gym")
    if found is None:
        raise UserError("gsm_symbolic needs the package reasoning-gym; pip install it")
    before = dict(sys.modules)
    if "reasoning_gym" not in before:
        folder = pathlib.Path(found.origin).parent
        for name in _PACKAGES:
            package = types.ModuleType(name)
            package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
    try:
        importlib.import_module("reasoning_gym.coaching")  # what it and `factory` are begins here
        module = importlib.import_module(f"{_PACKAGES[-1]}.gsm_symbolic")
        config = module.GSMSymbolicDatasetConfig(size=1, seed=0)
        return frozenset(module.tasks_ok), module.GSMSymbolicDataset(config).generators
    finally:
        for name in set(sys.modules) - set(before):
            if name.partition(".")[0] == "reasoning_gym":
                del sys.modules[name]
