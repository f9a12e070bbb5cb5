"""How long decoding takes: batch 1, warmed up, in turn with the expert's own decoding.

One row does not spread over a mesh's `data` axis: every device along it computes the same answer,
and the time is that of one slice of the axis.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from speccascade.evaluate.jobs import TIMING, Job
from speccascade.evaluate.quality import Prompts
from speccascade.evaluate.timing_parts import Part, Parts
from speccascade.inference import metrics
from speccascade.inference.engine import Engine, Request, answer_digest, program, rule_kind
from speccascade.inference.methods import EXPERT
from speccascade.inference.setting import Setting
from speccascade.sharding import hosts

# Settings that are timed in turn, together with the expert. Each trial of an example passes over
# all of them within seconds, so what else the machine does meanwhile falls on all alike.
TOGETHER = 8


def groups(jobs: Sequence[Job], whole: Sequence[Job] | None = None) -> list[list[Job]]:
    """Returns the jobs that are timed in turn: same examples and temperature, like beside like.

    Args:
      jobs: those to time.
      whole: all of the sweep's, so that a group stays together when others are done; None for
        `jobs`.
    """
    alike = defaultdict(list)
    for job in jobs if whole is None else whole:
        if job.kind == TIMING:
            alike[job.split, job.num_examples, job.trials, job.setting.temperature].append(job)
    wanted, found = set(jobs), []
    for group in alike.values():
        group.sort(key=lambda job: str((program(job.setting), rule_kind(job.setting))))
        chunks = (group[i : i + TOGETHER] for i in range(0, len(group), TOGETHER))
        found += [[job for job in chunk if job in wanted] for chunk in chunks]
    return [group for group in found if group]


def run(
    engine: Engine,
    prompts: dict[str, Prompts],
    jobs: Sequence[Job],
    parts: Parts,
    answered: Callable[[int], None],
    kept: Callable[[int], None],
    compiled: Callable[[Setting], None],
) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Times the settings of one group.

    The time of an example is that of its whole answer, prefill included, the median over trials; a
    method's time per token is the sum over examples, over the tokens of all of them. Beside it
    stands the time of an answer that ends with its first token: what its prompt takes, and one
    block.

    Args:
      engine: the pair.
      prompts: by split.
      jobs: a group of `groups`.
      parts: of this group; examples that it knows are not timed again.
      answered: told the number of answers after each example that is timed.
      kept: told that of the examples which are not.
      compiled: told each setting once its program is there.

    Yields:
      Each job with the measured fields of its row, or with a line that says why it failed.
    """
    first = jobs[0]
    expert = Setting(EXPERT, temperature=first.setting.temperature)
    settings = [expert, *(job.setting for job in jobs)]
    requests = prompts[first.split].requests[: first.num_examples]
    for setting in settings:
        if len(parts.known) < len(requests):
            _answer(engine, setting, requests[0])  # compiles
        compiled(setting)
    each = len(jobs) * first.trials
    kept(len(parts.known) * each)
    found = []
    for i, request in enumerate(requests):
        if (part := parts.known.get(i)) is None:
            part = _timed(engine, settings, request, first.trials)
            parts.keep(i, part)
            answered(each)
        found.append(part)
    columns = (np.array(column) for column in zip(*found, strict=True))
    ms, tokens, answers, invalid, first_ms = columns
    ms, first_ms, tokens = np.median(ms, axis=-1).T, np.median(first_ms, axis=-1).T, tokens.T
    invalid = invalid.sum(0)
    for s, job in enumerate(jobs, start=1):
        if invalid[s] or invalid[0]:
            who = "it" if invalid[s] else "the expert"
            yield job, f"{who} met logits that were not finite; look at checkpoints and dtype"
        else:
            row = _row(ms[s], tokens[s], ms[0], tokens[0])
            row["answer_digests"] = answers[:, s].tolist()
            if job.setting.method.in_order:
                row["first_ms"] = [round(x, 4) for x in first_ms[s].tolist()]
            yield job, row


def _timed(engine: Engine, settings: Sequence[Setting], request: Request, trials: int) -> Part:
    ms, first_ms = np.zeros((2, len(settings), trials))
    shortest = request._replace(max_new_tokens=1)
    answers: list[Sequence[int]] = [()] * len(settings)
    invalid = np.zeros(len(settings), int)
    for trial in range(trials):
        for turn in range(len(settings)):
            s = (turn + trial) % len(settings)
            ms[s, trial], answers[s], bad = _answer(engine, settings[s], request)
            invalid[s] += bad
            if settings[s].method.in_order:  # else there is no first token
                first_ms[s, trial] = _answer(engine, settings[s], shortest)[0]
    lengths, digests = [len(own) for own in answers], [answer_digest(own) for own in answers]
    return Part(ms.tolist(), lengths, digests, invalid.tolist(), first_ms.tolist())


def _answer(
    engine: Engine, setting: Setting, request: Request
) -> tuple[float, Sequence[int], bool]:
    """Returns an answer's milliseconds and tokens, and whether its logits were not finite."""
    decode = engine.prepare([setting], [request], [setting])
    began = time.perf_counter()
    output = jax.block_until_ready(decode())
    ms = 1000 * (time.perf_counter() - began)
    gathered = hosts.gather((output.tokens, output.num_tokens, output.invalid))
    tokens, num_tokens, invalid = (np.asarray(x[0]) for x in gathered)
    return ms, tokens[:num_tokens].tolist(), bool(invalid)


def differing(row: Mapping[str, Any], kept: Sequence[Sequence[int] | None]) -> dict[str, int]:
    """Returns how many timed answers are not those that were scored.

    One row goes through a model's matrix products in another way than the rows of a batch do, and
    sums are rounded otherwise: where two tokens are as likely as each other, the choice may differ.

    Args:
      row: the timed row's fields.
      kept: the tokens of the same examples' answers as quality decoded them, None where it did not.
    """
    both = [
        (timed, answer_digest(tokens))
        for timed, tokens in zip(row["answer_digests"], kept, strict=True)
        if tokens is not None
    ]
    return {
        "answers_compared": len(both),
        "answers_differing": sum(timed != batched for timed, batched in both),
    }


def _row(ms, tokens, expert_ms, expert_tokens) -> dict[str, Any]:
    columns = (ms, tokens, expert_ms, expert_tokens)
    return {
        "ms_per_token": metrics.finite(ms.sum() / tokens.sum()),
        "expert_ms_per_token": metrics.finite(expert_ms.sum() / expert_tokens.sum()),
        "speedup": metrics.finite(metrics.speedup(*columns)),
        "speedup_ci": list(metrics.bootstrap(metrics.speedup, *columns)),
        "ms": [round(x, 4) for x in ms.tolist()],
        "generated": tokens.tolist(),
        "expert_ms": [round(x, 4) for x in expert_ms.tolist()],
        "expert_generated": expert_tokens.tolist(),
    }
