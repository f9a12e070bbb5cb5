"""Sampled generations of table models against the law of sequences that their rules imply.

A `Setting` is a rule with its knobs, a temperature and truncations. Its law is computed in float64
numpy; the engine's is counted over many rows, each an example of its own. A chi-square compares.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from speccascade import rules as rules_lib
from speccascade.decode import Decoder, ModelDrafter, Output, Rows, generate, make_rows, stop_table
from speccascade.sampling import Truncation
from tests import enumeration, rule_oracle, toy_head
from tests.decode import toys

VOCAB, SIZE, LIMIT = 3, 2, 4
TABLE = toys.Table(VOCAB)
STOPS = stop_table(VOCAB, [enumeration.EOS])
# A run makes some hundred comparisons: together they give less than one false alarm in a million.
ALARM = 1e-9
SEQUENCES = np.array(list(itertools.product(range(VOCAB), repeat=LIMIT)))
POWERS = VOCAB ** np.arange(LIMIT)[::-1]


class Limits(NamedTuple):
    """A truncation in plain numbers."""

    top_k: int = VOCAB
    top_p: float = 1.0
    min_p: float = 0.0


class Setting(NamedTuple):
    """How a row is decoded."""

    rule: str
    knobs: dict
    temperature: float = 1.0
    drafter: Limits = Limits()
    expert: Limits = Limits()


def settings() -> list[Setting]:
    """Returns two settings of every rule: plain, and cold and truncated."""
    rng, made = np.random.default_rng(7), []
    for name, row in rules_lib.RULES.items():
        low, high = toys.RANGES.get(name, (0.05, 0.6))
        if name == "chowlog":
            low, high = 0.4, 0.9
        for how in ({}, {"temperature": 0.7, "drafter": Limits(2), "expert": Limits(3, 0.9, 0.15)}):
            knobs = {key: knob.default for key, knob in row.knobs.items()}
            knobs.update(toy_head.knobs_of(row))
            if "alpha" in knobs:
                knobs["alpha"] = rng.uniform(low, high)
            if "k" in knobs:
                knobs["k"] = 2
            made.append(Setting(name, knobs, **how))
    return made


def make_rules(batch: Sequence[Setting]) -> tuple[tuple[rules_lib.Rule, ...], list[int]]:
    """Returns the rules of a batch, their knobs [B], and each row's index into them."""
    # Thousands of rows are of few settings: knobs are checked once for each of those.
    distinct = list({id(setting): setting for setting in batch}.values())
    number = {id(setting): i for i, setting in enumerate(distinct)}
    rows = np.array([number[id(setting)] for setting in batch])
    names = list(dict.fromkeys(setting.rule for setting in distinct))
    made = []
    for name in names:
        own = next(setting.knobs for setting in distinct if setting.rule == name)
        traced = {
            key: [s.knobs[key] if s.rule == name else value for s in distinct]
            for key, value in own.items()
            if not rules_lib.RULES[name].knobs[key].static
        }
        rule = rules_lib.make(name, **{**own, **traced})
        made.append(jax.tree.map(lambda knob: knob[rows], rule))
    return tuple(made), np.array([names.index(s.rule) for s in distinct])[rows].tolist()


def make_batch(batch: Sequence[Setting], number: int) -> Rows:
    """Returns rows that go on from the token 0; half of the prompts say so twice."""

    def truncation(role):
        limits = [getattr(setting, role) for setting in batch]
        if all(own == Limits() for own in limits):
            return None
        return Truncation(*(np.array(field) for field in zip(*limits, strict=True)))

    return make_rows(
        [[0] * (1 + i % 2) for i in range(len(batch))],
        stop_table=STOPS,
        max_new_tokens=LIMIT,
        prompt_slots=2,
        temperature=[setting.temperature for setting in batch],
        example_ids=np.arange(len(batch)) + number * len(batch),
        seed=11,
        rule_index=make_rules(batch)[1],
        drafter_truncation=truncation("drafter"),
        expert_truncation=truncation("expert"),
    )


# ---- the law ----


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def as_sampled(logits, temperature: float, limits: Limits):
    """Returns a table of distributions as sampled from, one row of a sorted table at a time."""
    logits = np.asarray(logits, np.float64)
    if temperature == 0:
        return np.eye(logits.shape[-1])[logits.argmax(-1)]
    made = []
    for probs in softmax(logits / temperature):
        order = np.argsort(-probs)
        probs[order[limits.top_k :]] = 0
        probs = probs / probs.sum()
        before = np.cumsum(probs[order]) - probs[order]
        dropped = order[before >= limits.top_p]
        low = probs < limits.min_p * probs.max()
        probs[dropped] = 0
        probs[low] = 0
        made.append(probs / probs.sum())
    return np.stack(made)


def tables_of(setting: Setting, params):
    """Returns q, p, q1, p1 `[C, V]`, float64."""
    q = as_sampled(params["drafter"], setting.temperature, setting.drafter)
    p = as_sampled(params["expert"], setting.temperature, setting.expert)
    q1, p1 = (softmax(np.asarray(params[role], np.float64)) for role in ("drafter", "expert"))
    return q, p, q1, p1


def law(setting: Setting, params) -> np.ndarray:
    """Returns the probabilities of all sequences that the rule's pi implies, `[V**L]`."""
    pi, _ = rule_oracle.targets(setting.rule, setting.knobs, *tables_of(setting, params))
    return enumeration.target_law(pi[None], LIMIT)[0]


# ---- what the engine does ----


def decoder(verifier: str, kind=Decoder, drafter=None, size: int = SIZE) -> Decoder:
    """Returns a program; `kind` and `drafter` are for mutants."""
    return kind(TABLE, drafter or ModelDrafter(TABLE), size, LIMIT, verifier)


def speculative(made: Decoder, params) -> Callable:
    """Returns the function that decodes a batch of settings with `generate`."""
    return lambda batch, rows: generate(made, params, make_rules(batch)[0], rows)


def numbers_of(output: Output) -> np.ndarray:
    """Returns the number of each row's sequence, filled up with EOS, in base V."""
    counts = np.asarray(output.num_tokens)[:, None]
    tokens = np.where(np.arange(LIMIT) < counts, output.tokens[:, :LIMIT], enumeration.EOS)
    return tokens @ POWERS


def count(decode: Callable, chosen: Sequence[Setting], draws: int, batches: int) -> np.ndarray:
    """Returns how often each sequence came, `[S, V**L]`, in `draws * batches` rows per setting."""
    batch = [setting for setting in chosen for _ in range(draws)]
    counts = np.zeros((len(chosen), VOCAB**LIMIT), int)
    rows = make_batch(batch, 0)
    for i in range(batches):
        ids = (np.arange(len(batch)) + i * len(batch)).astype(np.int32)
        found = numbers_of(decode(batch, rows._replace(example_id=ids))).reshape(len(chosen), draws)
        for s, numbers in enumerate(found):
            counts[s] += np.bincount(numbers, minlength=VOCAB**LIMIT)
    return counts


def p_value(counts: np.ndarray, probs: np.ndarray) -> float:
    """Returns the probability of counts `[K]` at least as far from `probs` as these."""
    if counts[probs < 1e-12].any():
        return 0.0
    expected = counts.sum() * probs
    rare = expected < 25
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        if expected[-1] < 25 and len(expected) > 1:
            least = expected[:-1].argmin()
            for cells in (counts, expected):
                cells[least] += cells[-1]
            counts, expected = counts[:-1], expected[:-1]
    if len(expected) < 2:
        return 1.0
    return float(stats.chisquare(counts, expected).pvalue)


def check(decode: Callable, params, chosen: Sequence[Setting], draws: int, batches: int, law=law):
    """Raises AssertionError where sequences do not follow the law of their setting."""
    counts = count(decode, chosen, draws, batches)
    for setting, own in zip(chosen, counts, strict=True):
        probs = law(setting, params)
        np.testing.assert_allclose(probs.sum(), 1, atol=1e-9)
        assert p_value(own, probs) > ALARM, f"{setting} is not of its law"
