"""What a rule does on the reference answers: both models score them once, and nothing is decoded.

At every token of a reference, given the prompt and the reference before it, stand q and p, and with
them the target pi of every rule. The quality of a rule is here the mean probability of the
reference's token under pi; its deferral rate is the mean of the mass `sum_v q(v) r(v)`. Rows, and
the oracle beside the rules, are made in `reference_rows.py`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules as rules_lib
from speccascade.decode.drafters.interface import AT_POSITIONS, ROWS
from speccascade.evaluate import reference_rows
from speccascade.evaluate.jobs import Job
from speccascade.evaluate.quality import Prompts
from speccascade.evaluate.reference_rows import Figures
from speccascade.inference.engine import Engine, Request, prompt_slots, rule_kind
from speccascade.inference.setting import Setting
from speccascade.pairs import Pair
from speccascade.rules import Distributions, Rule, Target
from speccascade.sampling import Truncation, confidence, distribution
from speccascade.sharding import Layout, hosts
from speccascade.sharding.active import over_vocabulary, pad_vocabulary, use
from speccascade.vocab import Vocab

# Logits of one model that are held at a time: a batch has as many rows as fit, at least one.
MOST_LOGITS = 2**25


class Answered(NamedTuple):
    """Prompts with answers to score, the reference ones or what was generated, of one shape.

    Attributes:
      prompt: int32 [n, P].
      prompt_length: int32 [n].
      ids: int32 [n, A], the answer's tokens.
      length: int32 [n], of the answers; 0 where an example has none.
      whole: int32 [n], what that would be if nothing limited it.
    """

    prompt: np.ndarray
    prompt_length: np.ndarray
    ids: np.ndarray
    length: np.ndarray
    whole: np.ndarray


class Asked(NamedTuple):
    """A setting, its fields [B]; or several, [K, B]."""

    rule: Rule
    temperature: Any
    drafter_truncation: Truncation | None
    expert_truncation: Truncation | None


def answered(
    engine: Engine, requests: Sequence[Request], given: Sequence[Sequence[int]]
) -> Answered:
    """Returns prompts with answers, token ids, cut to the pair's lengths."""
    read = [list(request.prompt) for request in requests]
    lengths = engine.pair.lengths
    answers = [
        list(answer[: lengths.for_answer(len(prompt))])
        for prompt, answer in zip(read, given, strict=True)
    ]
    tokens, ids = (
        np.zeros((len(read), prompt_slots(max(1, *map(len, found)))), np.int32)
        for found in (read, answers)
    )
    for i, (prompt, answer) in enumerate(zip(read, answers, strict=True)):
        tokens[i, : len(prompt)] = prompt
        ids[i, : len(answer)] = answer
    prompt_length, length, whole = (
        np.array([len(x) for x in found], np.int32) for found in (read, answers, given)
    )
    return Answered(tokens, prompt_length, ids, length, whole)


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
    asked_of, many = prompts[jobs[0].split], jobs[0].num_examples
    found = answered(engine, asked_of.requests[:many], asked_of.answers[:many])
    size = found.ids.shape[1] * engine.pair.expert.vocab_size
    rows = max(1, min(batch_size, MOST_LOGITS // size, len(found.length)))
    own = np.arange(found.ids.shape[1]) < found.length[:, None]
    parts: dict[Job, list[np.ndarray]] = {job: [] for job in jobs}
    finite = []
    for start in range(0, len(found.length), rows):
        batch = batch_of(found, start, rows)
        logits = both_logits(engine, batch)
        count = min(rows, len(found.length) - start)
        finite.append(hosts.gather(_finite(*logits))[:count])
        here = own[start : start + count]
        told = figures(engine.pair.layout, [job.setting for job in jobs], *logits, batch.ids)
        for job in jobs:
            # Of many examples and rules, only what the rows need is kept.
            kept = reference_rows.sums if job.setting.method.measured else reference_rows.gains
            own_figures = Figures(*(values[:count] for values in told[job.setting]))
            parts[job].append(kept(own_figures, here))
    shortened = {
        "prompts_cut": asked_of.cut(many),
        "answers_cut": int(np.sum(found.whole > found.length)),
    }
    invalid = int(np.sum((own & ~np.concatenate(finite)).any(1)))
    for job in jobs:
        if invalid:
            yield (
                job,
                f"{invalid} of {job.num_examples} examples met logits that were not finite; look "
                "at the checkpoints and the dtype",
            )
            continue
        values = np.concatenate(parts[job], axis=1)
        oracle = not job.setting.method.measured
        make = reference_rows.oracle_row if oracle else reference_rows.rule_row
        yield job, {**make(values, own), **shortened}


def batch_of(found: Answered, start: int, rows: int) -> Answered:
    """Returns `rows` rows from `start` on; those that only fill the batch repeat the last one."""
    index = np.minimum(np.arange(start, start + rows), len(found.length) - 1)
    return Answered(*(values[index] for values in found))


def both_logits(engine: Engine, batch: Answered) -> tuple[jax.Array, jax.Array]:
    """Returns the drafter's and the expert's logits of the answers' tokens, [B, A, V] each."""
    given = batch.prompt, batch.prompt_length, batch.ids
    drafter, expert = (answer_logits(engine.pair, r, *given) for r in ("drafter", "expert"))
    return drafter, expert


def answer_logits(
    pair: Pair, role: str, prompt: np.ndarray, prompt_length: np.ndarray, answer: np.ndarray
) -> jax.Array:
    """Returns one model's logits of answers' tokens; see `Model.answer_logits`.

    Where the vocabulary is sharded it is padded to equal shards, see `pad_vocabulary`.
    """
    model = pair.models[role]
    placement = pair.layout and pair.layout.of(role, model)
    return _logits(model, placement, pair.params[role], prompt, prompt_length, answer)


@partial(jax.jit, static_argnums=(0, 1))
def _logits(model, placement, params, prompt, prompt_length, answer):
    with use(placement):
        return pad_vocabulary(model.answer_logits(params, prompt, prompt_length, answer))


@jax.jit
def _finite(drafter_logits, expert_logits):
    # A token that a model can never write has minus infinity.
    return jnp.isfinite(jnp.max(drafter_logits, -1)) & jnp.isfinite(jnp.max(expert_logits, -1))


def figures(
    layout: Layout | None, settings: Sequence[Setting], drafter_logits, expert_logits, ids
) -> dict[Setting, Figures]:
    """Returns what settings say of positions.

    Args:
      layout: where the logits lie on a mesh; None for one device.
      settings: with a rule, or oracles.
      drafter_logits: [B, A, V]; log-probabilities will do.
      expert_logits: [B, A, V].
      ids: int32 [B, A], the tokens that stand there.
    """
    kinds = defaultdict(list)
    for s in settings:
        names = tuple(tuple(k for k, _ in t) for t in (s.drafter_truncation, s.expert_truncation))
        kinds[rule_kind(s), names].append(s)
    found: dict[Any, Any] = {}
    for alike in kinds.values():
        each = [asked(setting, len(ids)) for setting in alike]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
        measured = hosts.gather(_measure(layout, stacked, drafter_logits, expert_logits, ids))
        found |= {s: Figures(*(v[i] for v in measured)) for i, s in enumerate(alike)}
    return found


def asked(setting: Setting, batch: int) -> Asked:
    """Returns what a setting asks for at every position of `batch` rows.

    Args:
      setting: one with a rule, or an oracle, which is given `spec`.
      batch: B.
    """

    def rows(value):
        return np.full((batch,), value, np.float32)

    def truncation(pairs):
        if not pairs:
            return None
        limits = {k: rows(v) if k != "top_k" else rows(v).astype(np.int32) for k, v in pairs}
        return Truncation(**limits)

    # The oracle needs q and p alone, which every rule comes with.
    name = setting.rule if setting.method.measured else "spec"
    static = {k: knob.static for k, knob in rules_lib.definition(name).knobs.items()}
    rule = rules_lib.make(name, **{k: v if static[k] else rows(v) for k, v in setting.knobs})
    limits = truncation(setting.drafter_truncation), truncation(setting.expert_truncation)
    return Asked(rule, rows(setting.temperature), *limits)


@partial(jax.jit, static_argnums=0)
def _measure(layout, asked, drafter_logits, expert_logits, ids):
    with use(layout and layout.rows):
        one = over_vocabulary(
            _at_positions, (ROWS, AT_POSITIONS, AT_POSITIONS, ROWS), Figures(*(ROWS,) * 5)
        )
        return jax.lax.map(lambda each: one(each, drafter_logits, expert_logits, ids), asked)


def _at_positions(vocab, asked: Asked, drafter_logits, expert_logits, ids) -> Figures:
    target, q, p = targets(vocab, asked, drafter_logits, expert_logits)
    at = partial(vocab.at, ids=ids)
    distance = rules_lib.total_variation(target.pi, q, vocab)[..., 0]
    return Figures(at(target.pi), at(q), at(p), target.deferral, distance)


def targets(
    vocab: Vocab, asked: Asked, drafter_logits: jax.Array, expert_logits: jax.Array
) -> tuple[Target, jax.Array, jax.Array]:
    """Returns a setting's target, q and p `[B, A, V]` at logits of that shape."""
    q = distribution(drafter_logits, asked.temperature, asked.drafter_truncation, vocab)
    p = distribution(expert_logits, asked.temperature, asked.expert_truncation, vocab)
    q1, p1 = confidence(drafter_logits, vocab), confidence(expert_logits, vocab)
    return rules_lib.apply(asked.rule, Distributions(q, p, q1, p1), vocab), q, p
