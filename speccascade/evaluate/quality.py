"""How good the answers are: settings of one program decode as one stream of answers."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from speccascade import decode
from speccascade.evaluate import compute
from speccascade.evaluate.jobs import QUALITY, Job
from speccascade.inference import metrics, stream
from speccascade.inference.engine import Engine, Request, program, rule_kind
from speccascade.inference.setting import Setting, digest
from speccascade.pairs import Pair
from speccascade.sharding import hosts
from speccascade.tasks import Example, Task
from speccascade.tasks.aggregate import statistic
from speccascade.workdir import results
from speccascade.workdir.answers import Answer, Answers


class Prompts(NamedTuple):
    """A split, ready to decode.

    Attributes:
      examples: in the task's order.
      requests: one per example.
      answers: token ids of the reference answers.
    """

    examples: Sequence[Example]
    requests: Sequence[Request]
    answers: Sequence[Sequence[int]]

    def cut(self, count: int) -> int:
        """Returns how many of the first `count` prompts were cut to fit."""
        return sum(request.cut > 0 for request in self.requests[:count])


class Tally:
    """What is known so far of one job: an answer and its score for each example that has one.

    An answer is `{"id", "prompt", "tokens", "text", "finished", "seconds", "counts"}`, JSON-ready:
    the example's id and a digest of its prompt, the answer's token ids and text, whether an
    end-of-sequence or a stop string ended it and not want of room, its share of the seconds that
    the rows at work took together (see `decode.Answered`), its counts (see `inference.statistics`).
    """

    def __init__(self, job: Job, task: Task, examples: Sequence[Example]):
        self.job = job
        self.examples = examples[: job.num_examples]
        self.answers: list[Answer | None] = [None] * job.num_examples
        self.invalid: set[int] = set()
        self._scores: list = [None] * job.num_examples
        self._task = task

    def take(self, index: int, answer: Answer) -> None:
        """Notes the answer to an example, and scores it."""
        self.answers[index] = answer
        self._scores[index] = self._task.score(answer["text"], self.examples[index])

    def missing(self) -> list[int]:
        """Returns the examples without an answer."""
        return [i for i, answer in enumerate(self.answers) if answer is None]

    @property
    def done(self) -> bool:
        """Whether no example is left to decode."""
        return len(self.missing()) == len(self.invalid)

    def row(self, pair: Pair, prompts: Prompts) -> dict[str, Any]:
        """Returns the measured fields of the job's row."""
        setting = self.job.setting
        # An answer that an older version decoded lacks what was not counted then.
        names = dict.fromkeys(name for answer in self.answers for name in answer["counts"])
        counts = {
            name: math.fsum(_number(answer["counts"].get(name)) for answer in self.answers)
            for name in names
        }
        return {
            **scored(self._scores, self._task),
            **metrics.rates(counts, setting),
            "multiply_adds_per_token": compute.per_token(pair, setting, counts),
            "prompts_cut": prompts.cut(self.job.num_examples),
            "answers_cut": sum(not answer["finished"] for answer in self.answers),
            "seconds": round(sum(answer["seconds"] for answer in self.answers), 3),
        }


def scored(scores: Sequence[float | Sequence[float]], task: Task) -> dict[str, Any]:
    """Returns the fields of a row that scores make, one score per example."""
    values, of = np.array(scores, np.float64), statistic(task.aggregate)
    return {
        "quality": metrics.finite(of(values)),
        "quality_ci": list(metrics.bootstrap(of, values)),
        "aggregate": task.aggregate,
        "scores": values.tolist(),
    }


def asked(example: Example) -> dict[str, Any]:
    """Returns the fields by which an answer belongs to an example."""
    return {"id": example.id, "prompt": digest(example.prompt)}


def answered(workdir: str, split: str) -> list[results.Row]:
    """Returns the rows of a split whose answers are kept, oldest first."""
    return [
        row
        for row in results.read(workdir)
        if row["kind"] == QUALITY and row["split"] == split and "answers" in row
    ]


def of_examples(kept: Iterable[Answer], examples: Sequence[Example]) -> list[Answer | None]:
    """Returns each example's own of some answers, the newest; None where it has none."""
    found = {(answer["id"], answer["prompt"]): answer for answer in kept}
    return [found.get(tuple(asked(example).values())) for example in examples]


def _number(count: float | None) -> float:
    return math.nan if count is None else count  # what a method does not have


class Kept:
    """The answers of a sweep that are in its workdir: read and written by the first process."""

    def __init__(self, store: Answers | None, name: Callable[[Job], str]):
        """Takes the workdir's answers on the first process, None on others, and a job's name."""
        self._store = store
        self._name = name

    def fill(self, tally: Tally) -> None:
        """Gives a tally what is there."""

        def known():
            found = of_examples(self._store.known(self._name(tally.job)), tally.examples)
            return [[place, a] for place, a in enumerate(found) if a is not None]

        for place, answer in hosts.from_first(known):
            tally.take(place, answer)

    def add(self, tally: Tally, places: Sequence[int]) -> None:
        """Writes answers that were decoded; when this returns, a kill leaves them there.

        Raises:
          UserError: they could not be written.
        """
        with hosts.agreed():
            if self._store is not None:
                self._store.add(self._name(tally.job), [tally.answers[i] for i in places])

    def whole(self, tally: Tally) -> None:
        """Packs the answers of a job that is done; those to other examples stay."""
        with hosts.agreed():
            if self._store is not None:
                self._store.pack(self._name(tally.job))


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Returns the jobs by compiled program."""
    found = defaultdict(list)
    for job in jobs:
        found[program(job.setting)].append(job)
    return list(found.values())


def run(
    engine: Engine,
    task: Task,
    prompts: dict[str, Prompts],
    jobs: Sequence[Job],
    batch_size: int,
    kept: Kept,
    answered: Callable[[int], None],
    known: Callable[[int], None],
) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Decodes what is missing of the jobs of one program.

    Args:
      engine: the pair.
      task: scores the answers.
      prompts: by split.
      jobs: a group of `groups`.
      batch_size: rows decoded at a time.
      kept: the answers that are there, and where others go.
      answered: told the number of answers as some are done.
      known: told that of the answers that were there.

    Yields:
      Each job with the measured fields of its row as soon as its last example is decoded, or with a
      line that says why it failed.
    """
    kinds = list({rule_kind(job.setting): job.setting for job in jobs}.values())
    tallies = [Tally(job, task, prompts[job.split].examples) for job in jobs]
    for tally in tallies:
        kept.fill(tally)
        known(tally.job.num_examples - len(tally.missing()))
        if tally.done:
            yield tally.job, tally.row(engine.pair, prompts[tally.job.split])
    items = [(tally, i) for tally in tallies for i in tally.missing()]
    settings = [tally.job.setting for tally, _ in items]
    requests = [prompts[tally.job.split].requests[i] for tally, i in items]
    for done in stream.answers(engine, settings, requests, kinds, batch_size):
        part = [items[answer.index] for answer in done]
        for (tally, index), answer in zip(part, done, strict=True):
            if answer.output.invalid:
                tally.invalid.add(index)
            else:
                asked_of = prompts[tally.job.split]
                tally.take(index, _answer(engine, asked_of, index, tally.job.setting, answer))
        own = list(dict.fromkeys(tally for tally, _ in part))
        for tally in own:
            kept.add(tally, [i for t, i in part if t is tally and i not in t.invalid])
        answered(len(part))
        for tally in own:
            if tally.done and tally.invalid:
                yield (
                    tally.job,
                    f"{len(tally.invalid)} of {tally.job.num_examples} examples met logits that "
                    "were not finite; look at the checkpoints and the dtype",
                )
            elif tally.done:
                kept.whole(tally)
                yield tally.job, tally.row(engine.pair, prompts[tally.job.split])


def _answer(
    engine: Engine, prompts: Prompts, index: int, setting: Setting, answer: decode.Answered
) -> Answer:
    output = answer.output
    tokens = output.tokens[: output.num_tokens].tolist()
    counts = metrics.counts(output, setting)
    return {
        **asked(prompts.examples[index]),
        "tokens": tokens,
        "text": engine.text(tokens, prompts.requests[index].prompt),
        "finished": bool(output.finished),
        "seconds": round(answer.seconds, 4),
        "counts": {name: metrics.finite(value) for name, value in counts.items()},
    }
