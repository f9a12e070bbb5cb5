"""GSM8K-style word problems with worked answers, from the package reasoning-gym.

Its `gsm_symbolic` has a hundred templates, each a generator of problems. A config chooses some
templates and an upper bound on every number in a problem. A problem belongs to the split that a
hash of its question names, so that no two splits can share one, however many are generated.
"""

import hashlib
import random
import re
from collections.abc import Iterator

import ml_collections

from speccascade import values
from speccascade.errors import UserError
from speccascade.tasks.example import Example

# Parts in sixteen of all problems, and the first id of each split.
_SPLITS = {"train": (range(0, 14), 0), "validation": ((14,), 10**8), "test": ((15,), 2 * 10**8)}
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_FINAL = re.compile(r"####\s*[^\d\s-]?(" + _NUMBER.pattern + ")")


def parse_number(text: str) -> float:
    """The value of "36", "36.0" or "1,200"."""
    return float(text.replace(",", ""))


def final_number(text: str) -> float | None:
    """The number after the last "####" of a worked answer, or None without one."""
    found = _FINAL.findall(text)
    return parse_number(found[-1]) if found else None


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

    def __init__(self, config: ml_collections.ConfigDict):
        self._templates = tuple(config.templates)
        self._max_number = config.max_number
        self._seed = values.whole("task.seed", config.seed)
        self._sizes = {
            split: values.whole(f"task.{split}_size", config[f"{split}_size"], 0)
            for split in _SPLITS
        }
        known = _working_templates()
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
        for question, answer, reference in self._problems(split):
            if question in seen or _part(question) not in parts:
                continue
            seen.add(question)
            out.append(Example(first_id + len(out), self.prompt(question), answer, reference))
            if len(out) == size:
                break
        return out

    def prompt(self, question: str) -> str:
        return question + "\n"

    def score(self, text: str, example: Example) -> float:
        """1.0 if the number after the last "####" equals the reference as a number."""
        return float(final_number(text) == example.reference)

    def _problems(self, split: str) -> Iterator[tuple[str, str, float]]:
        """Endless stream of (question, worked answer, final number), the templates in turn."""
        generators = _generators()
        rejected_in_a_row = 0
        draw = 0
        while True:
            for template in self._templates:
                rng = random.Random(f"{self._seed}/{split}/{template}/{draw}")
                problem = _read(generators[template](rng, 1.0))
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


def _largest(problem: tuple[str, str, float]) -> float:
    return max(parse_number(n) for n in _NUMBER.findall(problem[0] + " " + problem[1]))


def _read(item: dict) -> tuple[str, str, float] | None:
    """(question, worked answer, final number); None where the two answers disagree."""
    metadata = item["metadata"]
    nested = [m for m in metadata.values() if isinstance(m, dict)]
    answers = [m["answer_cot"] for m in (metadata, *nested) if "answer_cot" in m]
    answer = answers[0].strip() if answers else ""
    number = final_number(answer)
    if number is None or number != parse_number(str(item["answer"])):
        return None
    return item["question"].strip(), answer, number


def _working_templates() -> frozenset[int]:
    from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic

    return frozenset(gsm_symbolic.tasks_ok)


def _generators() -> dict:
    try:
        import reasoning_gym
    except ImportError as error:
        raise UserError("gsm_symbolic needs the package reasoning-gym; pip install it") from error
    return reasoning_gym.create_dataset("gsm_symbolic", size=1, seed=0).generators
