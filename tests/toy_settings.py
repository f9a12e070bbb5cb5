"""Every rule at all its knobs on pairs of toy table models, as arrays for `enumeration`.

A toy model is a table: the last `order` tokens, read as a number in base V, are its context `c`,
and row c its next-token distribution.

Axes: S settings (a rule with its knobs, on one pair of models), M pairs, C contexts, V vocabulary.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules
from tests import toy_head

ALPHAS = (-0.5, -0.02, 0.0, 0.02, 0.3, 0.6, 0.98, 1.02)
OTHER_KNOBS = {"fallback": (0.0, 0.45, 0.6), "k": (1, 2)}


class Models(NamedTuple):
    """Pairs of drafter and expert, `[M, C, V]`: as sampled from, and at temperature 1."""

    q: np.ndarray
    p: np.ndarray
    q1: np.ndarray
    p1: np.ndarray


class Settings(NamedTuple):
    """What is decoded: q, pi and p `[S, C, V]`, and where drafting ends.

    Attributes:
      names: the rule of each setting, `[S]`.
      q, pi, p: the tables.
      room: int32 [S, C], most tokens that a block started in context c drafts.
      stops: bool [S, C], whether drafting ends before a position of context c.
    """

    names: np.ndarray
    q: np.ndarray
    pi: np.ndarray
    p: np.ndarray
    room: np.ndarray
    stops: np.ndarray


def knob_values(name: str) -> list[dict[str, float]]:
    """Returns knobs for a rule: its endpoints, values beside them and values between them."""
    row = rules.RULES[name]

    def allowed(knob, value):
        return knob.low <= value and (value < knob.high if knob.open_high else value <= knob.high)

    values = {
        key: [v for v in (ALPHAS if key == "alpha" else OTHER_KNOBS[key]) if allowed(knob, v)]
        for key, knob in row.knobs.items()
        if key != "head"
    }
    grid = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    fixed = toy_head.knobs_of(row)
    defaults = {key: knob.default for key, knob in row.knobs.items() if knob.default is not None}
    ends = [{**defaults, **end} for end in (row.drafter_at, row.expert_at) if end]
    return [{**fixed, **values} for values in ends + grid]


def stacked_rules(repeat: int) -> list[tuple[rules.Rule, int]]:
    """Returns every rule with all its knob values, each `repeat` times, as `[B]` knobs; with B."""
    stacked = []
    for name, row in rules.RULES.items():
        groups: dict[tuple, list] = {}
        for values in knob_values(name):
            static = tuple((key, v) for key, v in values.items() if row.knobs[key].static)
            groups.setdefault(static, []).append(values)
        for static, group in groups.items():
            traced = [key for key in row.knobs if not row.knobs[key].static]
            knobs = {key: np.repeat([values[key] for values in group], repeat) for key in traced}
            stacked.append((rules.make(name, **knobs, **dict(static)), len(group) * repeat))
    return stacked


# ---- toy models ----


def _softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _one_hot(probs):
    return np.eye(probs.shape[-1])[probs.argmax(-1)]


def toy_models(vocab: int, order: int, seed: int) -> Models:
    """Makes pairs of table models: plain, truncated, greedy, equal, and one of special cases."""
    rng = np.random.default_rng(seed)
    contexts = vocab**order

    def random():
        return _softmax(1.5 * rng.normal(size=(contexts, vocab)))

    def truncated(probs, temperature, keep):
        probs = probs ** (1 / temperature)
        probs = np.where(probs >= np.sort(probs, -1)[:, [-keep]], probs, 0)
        return probs / probs.sum(-1, keepdims=True)

    q1, p1 = random(), random()
    pairs = [(q1, p1, q1, p1)]
    q1, p1 = random(), random()
    pairs.append((truncated(q1, 1.3, vocab), truncated(p1, 0.7, 2), q1, p1))
    q1, p1 = random(), random()
    pairs.append((_one_hot(q1), _one_hot(p1), q1, p1))
    q1 = random()
    pairs.append((q1, q1, q1, q1))
    # By context: equal, greedy beside sampled, uniform, nearly equal, without overlap.
    q, p, q1, p1 = random(), random(), random(), random()
    uniform, half = np.full(vocab, 1 / vocab), np.arange(vocab) < vocab // 2
    for c in range(contexts):
        cases = [
            (q[c], q[c]),
            (_one_hot(q[c]), p[c]),
            (q[c], _one_hot(p[c])),
            (uniform, p[c]),
            (q[c], q[c] * (1 - 1e-6) + p[c] * 1e-6),
            (half / half.sum(), ~half / (~half).sum()),
        ]
        q[c], p[c] = cases[c % len(cases)]
    pairs.append((q, p, q1, p1))
    return Models(*(np.stack(tables) for tables in zip(*pairs, strict=True)))


@functools.partial(jax.jit, static_argnames="counts")
def _targets(all_rules, models, counts):
    q, pi, p, stops = [], [], [], []
    for rule, count in zip(all_rules, counts, strict=True):
        times = count // models.q.shape[0]
        d = rules.Distributions(*(jnp.tile(x, (times, 1, 1)) for x in models))
        q.append(d.q)
        p.append(d.p)
        pi.append(rules.apply(rule, d).pi)
        stops.append(rules.ends_draft(rule, d.q1))
    return tuple(jnp.concatenate(x) for x in (q, pi, p, stops))


@functools.cache
def make_settings(
    vocab: int, order: int, size: int, *, ragged: bool, seed: int = 0, dtype=np.float32
) -> Settings:
    """Makes every rule at all its knobs on every pair of toy models.

    Args:
      vocab: V, at most 5.
      order: tokens that a context holds; V**order is at most 9.
      size: draft length N.
      ragged: whether blocks are also cut short at random, down to no drafted token at all.
      seed: of the models and of the cuts.
      dtype: of the tables; float64 needs `jax.enable_x64`.
    """
    models = Models(*(x.astype(dtype) for x in toy_models(vocab, order, seed)))
    all_rules, counts = zip(*stacked_rules(repeat=models.q.shape[0]), strict=True)
    all_rules = jax.tree.map(lambda knob: knob.astype(dtype), all_rules)
    # Padded to one shape with contexts and tokens without mass, so that the rules compile once.
    contexts, pad = vocab**order, ((0, 0), (0, 9 - vocab**order), (0, 5 - vocab))
    tables = _targets(all_rules, Models(*(np.pad(x, pad) for x in models)), counts)
    q, pi, p = (np.asarray(x)[:, :contexts, :vocab] for x in tables[:3])
    stops = np.asarray(tables[3])[:, :contexts]
    names = np.repeat([rule.name for rule in all_rules], counts)
    rng = np.random.default_rng(seed + 1)
    room = np.full(q.shape[:2], size, np.int32)
    if ragged:
        room = rng.integers(0, size + 1, size=room.shape).astype(np.int32)
        stops = stops | (rng.uniform(size=stops.shape) < 0.15)
    return Settings(names, q, pi, p, room, stops)
