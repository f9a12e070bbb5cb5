"""How good the answers are: settings of one program decode as one stream of mixed batches."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from speccascade import decode
from speccascade.evaluate import compute, metrics
from speccascade.evaluate.decoding import Engine, Request, program, rule_kind
from speccascade.evaluate.jobs import Job
from speccascade.pairs import Pair
from speccascade.sharding import hosts
from speccascade.tasks import Example, Task
from speccascade.tasks.aggregate import statistic


class Prompts(NamedTuple):
    """A split, ready to decode.

    Attributes:
      examples: in the task's order.
      requests: one per example.
      answers: token ids of the reference answers; rows of like length make a batch.
    """

    examples: Sequence[Example]
    requests: Sequence[Request]
    answers: Sequence[Sequence[int]]


class _Tally:
    """What is known so far of one job."""

    def __init__(self, job: Job, aggregate: str):
        self.job = job
        self.aggregate = aggregate
        self.scores: list = [None] * job.num_examples
        self.invalid = 0
        self.seconds = 0.0
        self.counts: dict[str, float] = dict.fromkeys(decode.Stats._fields, 0.0)

    @property
    def done(self) -> bool:
        return None not in self.scores

    def row(self, pair: Pair) -> dict[str, Any]:
        setting = self.job.setting
        scores = np.array(self.scores, np.float64)
        of = statistic(self.aggregate)
        return {
            "quality": metrics.finite(of(scores)),
            "quality_ci": list(metrics.bootstrap(of, scores)),
            **metrics.rates(self.counts, setting.method, setting.verifier),
            "multiply_adds_per_token": compute.per_token(pair, setting, self.counts),
            "seconds": round(self.seconds, 3),
            "aggregate": self.aggregate,
            "scores": scores.tolist(),
        }


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
    advance: Callable[[int], None],
) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Decodes the jobs of one program.

    Args:
      engine: the pair.
      task: scores the answers.
      prompts: by split.
      jobs: a group of `groups`.
      batch_size: rows decoded at a time.
      advance: told the number of examples after each batch.

    Yields:
      Each job with the measured fields of its row as soon as its last example is decoded, or with a
      line that says why it failed.
    """
    kinds = list({rule_kind(job.setting): job.setting for job in jobs}.values())
    tallies = [_Tally(job, task.aggregate) for job in jobs]
    stream = [(tally, i) for tally in tallies for i in _by_length(tally.job, prompts)]
    for start in range(0, len(stream), batch_size):
        part = stream[start : start + batch_size]
        began = time.monotonic()
        output = _decode(engine, prompts, kinds, part, batch_size)
        seconds = (time.monotonic() - began) / len(part)
        for row, (tally, index) in enumerate(part):
            _count(engine, task, prompts[tally.job.split], tally, index, output, row)
            tally.seconds += seconds
        advance(len(part))
        for tally in dict.fromkeys(tally for tally, _ in part):
            if tally.done and tally.invalid:
                yield (
                    tally.job,
                    f"{tally.invalid} of {tally.job.num_examples} examples met logits that were "
                    "not finite; look at the checkpoints and the dtype",
                )
            elif tally.done:
                yield tally.job, tally.row(engine.pair)


def _by_length(job: Job, prompts: dict[str, Prompts]) -> list[int]:
    answers = prompts[job.split].answers[: job.num_examples]
    return list(np.argsort([len(answer) for answer in answers], kind="stable"))


def _decode(engine, prompts, kinds, part, batch_size) -> decode.Output:
    settings = [tally.job.setting for tally, _ in part]
    requests = [prompts[tally.job.split].requests[index] for tally, index in part]
    missing = batch_size - len(part)
    settings += settings[:1] * missing
    requests += [requests[0]._replace(max_new_tokens=0)] * missing
    output = engine.prepare(settings, requests, kinds)()
    tokens, num_tokens, invalid, stats = hosts.gather(
        (output.tokens, output.num_tokens, output.invalid, output.stats)
    )
    return output._replace(tokens=tokens, num_tokens=num_tokens, invalid=invalid, stats=stats)


def _count(engine, task, prompts, tally, index, output, row) -> None:
    prompt = prompts.requests[index].prompt
    text = engine.text(output.tokens[row, : output.num_tokens[row]], prompt)
    tally.scores[index] = task.score(text, prompts.examples[index])
    tally.invalid += int(output.invalid[row])
    for field, values in output.stats._asdict().items():
        tally.counts[field] += float(values[row])
