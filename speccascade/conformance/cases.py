"""The cases: distributions, drafts and uniforms, of every rule and both verifiers.

Probabilities are multiples of 1/64, exact in every float format that engines use. Uniforms keep
clear of the thresholds that they are compared with, and knobs of the values at which a rule's
decision would turn over, so that the outcome is the same in any arithmetic.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from speccascade.rules import RULES
from speccascade.verify import METHODS

SIZE, VOCAB, PADDING, GRID = 3, 6, 2, 64
CLEAR = 0.01  # of uniforms from thresholds, and of knobs from values where decisions turn over

# Knobs at which a rule is neither drafter nor expert; the default of every other one.
_KNOBS: dict[str, tuple[dict, dict]] = {
    "chow": ({"alpha": 0.55}, {"alpha": 0.7}),
    "chowlog": ({"alpha": 1.0}, {"alpha": 1.3}),
    "diff": ({"alpha": 0.05}, {"alpha": -0.1}),
    "opt": ({"alpha": 0.3}, {"alpha": -0.4}),
    "optlog": ({"alpha": 0.3}, {"alpha": -0.4}),
    "learned": ({"alpha": 0.1, "head": "shipped:gsm_symbolic"},) * 2,
    "token_v1": ({"alpha": 0.2}, {"alpha": 0.35}),
    "token_v2": ({"alpha": 0.2}, {"alpha": 0.35}),
    "token_v3": ({"alpha": 0.3}, {"alpha": 0.7}),
    "lossy": ({"alpha": 0.3}, {"alpha": 0.6}),
    "lenient": ({"alpha": 0.3}, {"alpha": 0.6}),
    "bild": ({"alpha": 1.5, "fallback": 0.3}, {"alpha": 2.5, "fallback": 0.45}),
    "mixture": ({"alpha": 0.3}, {"alpha": 0.7}),
    "typical": ({"alpha": 0.3}, {"alpha": 0.5}),
    "topk_relaxed": ({"alpha": 0.3, "k": 2}, {"alpha": 0.2, "k": 3}),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What goes in; N is `SIZE`, V the vocabulary.

    Attributes:
      name: "verifier/rule/what".
      verifier: "token" or "block".
      rule: a name of `RULES`.
      knobs: the rule's.
      draft: int [N], -1 where nothing was drafted.
      drafted: how many tokens were.
      q, p, q1, p1: float64 [N + 1, V], see `rules.Distributions`; behind the last position that was
        drafted and the one after it, q and q1 are zero.
      wanted: tokens to be kept, if that can be.
      seed: of the uniforms.
      accept: float64 [N], given; None to be drawn.
    """

    name: str
    verifier: str
    rule: str
    knobs: dict
    draft: np.ndarray
    drafted: int
    q: np.ndarray
    p: np.ndarray
    q1: np.ndarray
    p1: np.ndarray
    wanted: int
    seed: tuple[int, ...]
    accept: np.ndarray | None = None


def knobs_of(rule: str) -> tuple[dict, dict]:
    """Returns the knobs of a rule's two cases."""
    return _KNOBS.get(rule, ({}, {}))


def candidates(verifier: str, rule: str, seed: int) -> Iterator[Iterator[Case]]:
    """Yields, for each case of a rule, cases without end, of which the first that will do is it."""
    start = (seed, METHODS.index(verifier), list(RULES).index(rule))
    for which in (0, 1):
        yield (_random_case(verifier, rule, which, (*start, which, n)) for n in itertools.count())


def edges(verifier: str, rule: str, seed: int) -> Iterator[Iterator[Case]]:
    """Yields the edge cases of a rule as `candidates` does."""
    start = (seed, METHODS.index(verifier), list(RULES).index(rule))
    for place, (what, drafted) in enumerate(_EDGES.items()):
        keys = ((*start, 2 + place, n) for n in itertools.count())
        yield (_edge_case(verifier, rule, what, drafted, key) for key in keys)


def _random_case(verifier: str, rule: str, which: int, key: tuple[int, ...]) -> Case:
    q1, p1 = _random(np.random.default_rng(key), 2)
    tables = q1, p1, q1, p1
    if which:  # as sampled from at another temperature
        tables = _sharpened(q1), _sharpened(p1), q1, p1
    return _case(verifier, rule, str(which), which, key, tables, SIZE)


def _edge_case(verifier, rule, what, drafted, key) -> Case:
    q, p = _edge_tables(what, np.random.default_rng(key))
    found = _case(verifier, rule, what, 0, key, (q, p, q, p), drafted)
    if what == "zero uniform":
        return dataclasses.replace(found, accept=np.zeros(SIZE), wanted=0)
    return found


def _case(verifier, rule, what, which, key, tables, drafted) -> Case:
    q, p, q1, p1 = (np.array(table) for table in tables)
    rng = np.random.default_rng((*key, 1))
    draft = np.array([rng.choice(len(row), p=row) for row in q[:SIZE]])
    draft[drafted:] = -1
    for table in (q, q1):
        table[drafted + 1 :] = 0
    return Case(
        name=f"{verifier}/{rule}/{what}",
        verifier=verifier,
        rule=rule,
        knobs=knobs_of(rule)[which],
        draft=draft,
        drafted=drafted,
        q=q,
        p=p,
        q1=q1,
        p1=p1,
        wanted=int(rng.integers(drafted + 1)),
        seed=(*key, 2),
    )


# The edge cases, and how many tokens are drafted in each.
_EDGES = {
    "equal": SIZE,
    "one-hot, equal": SIZE,
    "one-hot, other": SIZE,
    "one-hot drafts": SIZE,
    "one-hot expert": SIZE,
    "no overlap": SIZE,
    "equal, then not": SIZE,
    "zero uniform": SIZE,  # a token without target mass is not kept at u = 0 either
    "padded ids": SIZE - 1,
    **{f"{drafted} drafted, zero rows": drafted for drafted in range(SIZE)},
}


def _edge_tables(what: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns q and p of an edge case."""
    one_hot, half = np.eye(VOCAB), np.arange(VOCAB) < VOCAB // 2
    q, p = _random(rng, 2)
    if what == "equal":
        return p, p
    if what == "equal, then not":
        return np.concatenate([p[:2], q[2:]]), p
    if what == "one-hot, equal":
        return one_hot[[0, 3, 2, 5]], one_hot[[0, 3, 2, 5]]
    if what == "one-hot, other":
        return one_hot[[0, 3, 2, 5]], one_hot[[0, 4, 2, 5]]
    if what == "one-hot drafts":
        return one_hot[[0, 3, 2, 5]], p
    if what == "one-hot expert":
        return q, one_hot[p.argmax(-1)]
    if what == "no overlap":
        return _random(rng, 1, half)[0], _random(rng, 1, ~half)[0]
    if what == "zero uniform":
        return one_hot[[1, 1, 1, 1]], one_hot[[2, 1, 1, 1]]
    if what == "padded ids":
        q, p = (np.pad(table, ((0, 0), (0, PADDING))) for table in (q, p))
    return q, p


def _random(rng: np.random.Generator, count: int, allowed: np.ndarray | int = 1) -> list:
    """Returns distributions [N + 1, V] on the grid, some of their entries zero."""
    weights = rng.gamma(0.7, size=(count, SIZE + 1, VOCAB)) * allowed
    return [_on_grid(table) for table in weights]


def _sharpened(table: np.ndarray) -> np.ndarray:
    return _on_grid(table**1.6)


def _on_grid(weights: np.ndarray) -> np.ndarray:
    """Returns weights [..., V] as multiples of 1/GRID of sum 1, by largest remainders."""
    shares = GRID * weights / weights.sum(-1, keepdims=True)
    whole = np.floor(shares)
    order = np.argsort(np.argsort(whole - shares, axis=-1, kind="stable"), axis=-1)
    missing = GRID - whole.sum(-1, keepdims=True)
    return (whole + (order < missing)) / GRID
