"""What a rule does on the reference answers: both models score them once, and nothing is decoded.

At every token of a reference, given the prompt and the reference before it, stand q and p, and with
them the target pi of every rule. The quality of a rule is here the mean probability of the
reference's token under pi; its deferral rate is the mean of the mass `sum_v q(v) r(v)`.

The *oracle* knows the reference: it defers the positions at which p of the reference's token
exceeds q of it by most. No rule that decides by position has a higher quality at the same deferral
rate, whatever it looks at. It does not bound rules that decide by token, which can defer a part of
q's mass at one position.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade.decode.drafters import AT_POSITIONS, ROWS
from speccascade.evaluate import metrics
from speccascade.evaluate.decoding import Engine, prompt_slots, rule_kind
from speccascade.evaluate.jobs import ORACLE, Job
from speccascade.evaluate.quality import Prompts
from speccascade.evaluate.settings import Setting
from speccascade.rules import Distributions, Rule
from speccascade.sampling import Truncation, confidence, distribution
from speccascade.sharding import hosts
from speccascade.sharding.active import over_vocabulary, pad_vocabulary, use

# Logits of one model that are held at a time: a batch has as many rows as fit, at least one.
MOST_LOGITS = 2**25

# Shares of the positions that the oracle's curve defers: close together where it rises.
BUDGETS = tuple(i / 100 for i in (*range(10), *range(10, 101, 5)))


class References(NamedTuple):
    """Prompts with their reference answers, padded to one shape.

    Attributes:
      tokens: int32 [n, T], prompt and answer.
      prompt_length: int32 [n].
      ids: int32 [n, A], the answer's tokens.
      length: int32 [n], of the answers; 0 where an example has none.
    """

    tokens: np.ndarray
    prompt_length: np.ndarray
    ids: np.ndarray
    length: np.ndarray


class Figures(NamedTuple):
    """What one setting says of the positions of a batch.

    Attributes:
      pi: float32 [B, A], the target's probability of the reference's token.
      q: float32 [B, A], the drafter's.
      p: float32 [B, A], the expert's.
      deferral: float32 [B, A], the deferred mass; NaN where the method has no such thing.
      distance: float32 [B, A], TV(pi, q), the probability of a rejection.
    """

    pi: jax.Array
    q: jax.Array
    p: jax.Array
    deferral: jax.Array
    distance: jax.Array


class _Asked(NamedTuple):
    """A setting, its fields [B]; or several, [K, B]."""

    rule: Rule
    temperature: np.ndarray
    drafter_truncation: Truncation | None
    expert_truncation: Truncation | None


def references(engine: Engine, prompts: Prompts, count: int) -> References:
    """Returns the first `count` prompts with their answers, cut to the pair's context."""
    read = [list(request.prompt) for request in prompts.requests[:count]]
    room = engine.pair.context_length
    answers = [
        list(answer[: room - len(prompt)])
        for prompt, answer in zip(read, prompts.answers[:count], strict=True)
    ]
    total = max(len(p) + len(a) for p, a in zip(read, answers, strict=True))
    widest = max(1, *map(len, answers))
    tokens = np.zeros((count, prompt_slots(total)), np.int32)
    ids = np.zeros((count, prompt_slots(widest)), np.int32)
    for i, (prompt, answer) in enumerate(zip(read, answers, strict=True)):
        tokens[i, : len(prompt) + len(answer)] = prompt + answer
        ids[i, : len(answer)] = answer
    lengths = (np.array([len(x) for x in found], np.int32) for found in (read, answers))
    prompt_length, length = lengths
    return References(tokens, prompt_length, ids, length)


def groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Returns the jobs that are measured on the same pass of the models over a split."""
    found = defaultdict(list)
    for job in jobs:
        found[job.split, job.num_examples].append(job)
    return list(found.values())


def run(
    engine: Engine, prompts: Mapping[str, Prompts], jobs: Sequence[Job], batch_size: int
) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Measures the settings of one group.

    Args:
      engine: the pair.
      prompts: by split.
      jobs: a group of `groups`.
      batch_size: the most rows that are scored at a time.

    Yields:
      Each job with the measured fields of its row, or with a line that says why it failed. Without
      reference answers there are no positions, and the figures are None.
    """
    found = references(engine, prompts[jobs[0].split], jobs[0].num_examples)
    size = found.tokens.shape[1] * engine.pair.expert.vocab_size
    rows = max(1, min(batch_size, MOST_LOGITS // size, len(found.length)))
    own = np.arange(found.ids.shape[1]) < found.length[:, None]
    parts: dict[Job, list[Figures]] = {job: [] for job in jobs}
    finite = []
    for start in range(0, len(found.length), rows):
        batch = _filled(found, start, rows)
        logits = _both(engine, batch)
        count = min(rows, len(found.length) - start)
        finite.append(hosts.gather(_finite(*logits))[:count])
        for job, figures in _figures(engine, jobs, logits, batch.ids).items():
            parts[job].append(Figures(*(values[:count] for values in figures)))
    invalid = int(np.sum((own & ~np.concatenate(finite)).any(1)))
    for job in jobs:
        if invalid:
            yield (
                job,
                f"{invalid} of {job.num_examples} examples met logits that were not finite; look "
                "at the checkpoints and the dtype",
            )
            continue
        columns = zip(*parts[job], strict=True)
        figures = Figures(*(np.concatenate(column).astype(np.float64) for column in columns))
        yield job, (_oracle_row if job.setting.method == ORACLE else _row)(figures, own)


def _filled(found: References, start: int, rows: int) -> References:
    """Returns a batch; rows that only fill it repeat the last one."""
    index = np.minimum(np.arange(start, start + rows), len(found.length) - 1)
    return References(*(values[index] for values in found))


def _both(engine: Engine, batch: References) -> tuple[jax.Array, jax.Array]:
    """Returns the drafter's and the expert's logits of the answers' tokens, [B, A, V] each."""
    pair, count = engine.pair, batch.ids.shape[1]
    scored = []
    for role in ("drafter", "expert"):
        model = getattr(pair, role)
        placement = pair.layout and pair.layout.of(role, model)
        scored.append(
            _logits(model, placement, count, pair.params[role], batch.tokens, batch.prompt_length)
        )
    return tuple(scored)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _logits(model, placement, count, params, tokens, prompt_length):
    with use(placement):
        logits = model.forward(params, tokens, prompt_length)
        index = prompt_length[:, None] - 1 + jnp.arange(count)
        index = jnp.minimum(index, tokens.shape[1] - 1)[..., None]
        return pad_vocabulary(jnp.take_along_axis(logits, index, axis=1))


@jax.jit
def _finite(drafter_logits, expert_logits):
    # A token that a model can never write has minus infinity.
    return jnp.isfinite(jnp.max(drafter_logits, -1)) & jnp.isfinite(jnp.max(expert_logits, -1))


def _figures(engine: Engine, jobs, logits, ids) -> dict[Job, Figures]:
    kinds = defaultdict(list)
    for job in jobs:
        s = job.setting
        names = tuple(tuple(k for k, _ in t) for t in (s.drafter_truncation, s.expert_truncation))
        kinds[rule_kind(s), names].append(job)
    found = {}
    for alike in kinds.values():
        asked = [_asked(job.setting, len(ids)) for job in alike]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *asked)
        measured = hosts.gather(_measure(engine.pair.layout, stacked, *logits, ids))
        found |= {job: Figures(*(v[i] for v in measured)) for i, job in enumerate(alike)}
    return found


def _asked(setting: Setting, batch: int) -> _Asked:
    def rows(value):
        return np.full((batch,), value, np.float32)

    def truncation(pairs):
        if not pairs:
            return None
        limits = {k: rows(v) if k != "top_k" else rows(v).astype(np.int32) for k, v in pairs}
        return Truncation(**limits)

    # The oracle needs q and p alone, which every rule comes with.
    name = "spec" if setting.method == ORACLE else setting.rule
    static = {k: knob.static for k, knob in rules_lib.spec(name).knobs.items()}
    rule = rules_lib.make(name, **{k: v if static[k] else rows(v) for k, v in setting.knobs})
    limits = truncation(setting.drafter_truncation), truncation(setting.expert_truncation)
    return _Asked(rule, rows(setting.temperature), *limits)


@partial(jax.jit, static_argnums=0)
def _measure(layout, asked, drafter_logits, expert_logits, ids):
    with use(layout and layout.rows):
        one = over_vocabulary(
            _at_positions, (ROWS, AT_POSITIONS, AT_POSITIONS, ROWS), Figures(*(ROWS,) * 5)
        )
        return jax.lax.map(lambda each: one(each, drafter_logits, expert_logits, ids), asked)


def _at_positions(vocab, asked: _Asked, drafter_logits, expert_logits, ids) -> Figures:
    q = distribution(drafter_logits, asked.temperature, asked.drafter_truncation, vocab)
    p = distribution(expert_logits, asked.temperature, asked.expert_truncation, vocab)
    q1, p1 = confidence(drafter_logits, vocab), confidence(expert_logits, vocab)
    target = rules_lib.apply(asked.rule, Distributions(q, p, q1, p1), vocab)
    at = partial(vocab.at, ids=ids)
    distance = rules_lib.total_variation(target.pi, q, vocab)[..., 0]
    return Figures(at(target.pi), at(q), at(p), target.deferral, distance)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return above.sum(-1) / below.sum(-1)


def _interval(sums: np.ndarray, length: np.ndarray) -> list[float]:
    there = length > 0  # an example without positions says nothing
    return list(metrics.bootstrap(_ratio, sums[there], length[there]))


def _rounded(values: np.ndarray) -> list:
    return np.round(values, 6).tolist()


def _row(figures: Figures, own: np.ndarray) -> dict[str, Any]:
    """Returns a rule's row.

    Args:
      figures: of all examples, [n, A].
      own: bool [n, A], where an example's answer has a token.
    """
    if not own.any():
        return {"positions": 0, "quality": None, "deferral_rate": None, "rejection_rate": None}
    length = own.sum(1).astype(np.float64)
    sums = {
        "reference": np.where(own, figures.pi, 0.0).sum(1),
        "deferral": np.where(own, figures.deferral, 0.0).sum(1),
        "tv": np.where(own, figures.distance, 0.0).sum(1),
    }
    defers = bool(np.isfinite(sums["deferral"]).all())
    return {
        "positions": int(own.sum()),
        "quality": float(_ratio(sums["reference"], length)),
        "quality_ci": _interval(sums["reference"], length),
        "deferral_rate": float(_ratio(sums["deferral"], length)) if defers else None,
        "rejection_rate": float(_ratio(sums["tv"], length)),
        "lengths": own.sum(1).tolist(),
        "reference_sums": _rounded(sums["reference"]),
        "deferral_sums": _rounded(sums["deferral"]) if defers else None,
        "tv_sums": _rounded(sums["tv"]),
    }


def _oracle_row(figures: Figures, own: np.ndarray) -> dict[str, Any]:
    """Returns the oracle's row: a point of its curve for each of `BUDGETS`.

    Of positions with equal gain as many are deferred as the budget leaves room for, each in equal
    part: its quality is the same whichever they are.
    """
    if not own.any():
        return {"positions": 0, "quality": None, "deferral_rate": None}
    gain = np.where(own, figures.p - figures.q, -np.inf)
    ordered = np.sort(gain[own])[::-1]
    qualities, intervals, sums = [], [], []
    length = own.sum(1).astype(np.float64)
    for budget in BUDGETS:
        wanted = budget * len(ordered)
        edge = ordered[min(int(wanted), len(ordered) - 1)]
        above = int(np.sum(ordered > edge))
        part = (wanted - above) / int(np.sum(ordered == edge))
        deferral = np.where(gain > edge, 1.0, np.where(gain == edge, part, 0.0))
        reference = np.where(own, figures.q + deferral * (figures.p - figures.q), 0.0).sum(1)
        qualities.append(float(_ratio(reference, length)))
        intervals.append(_interval(reference, length))
        sums.append(_rounded(reference))
    return {
        "positions": int(own.sum()),
        "quality": qualities,
        "quality_ci": intervals,
        "deferral_rate": list(BUDGETS),
        "lengths": own.sum(1).tolist(),
        "reference_sums": sums,
    }
