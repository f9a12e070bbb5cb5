"""The cases: distributions, drafts and uniforms, of every rule and both verifiers.

Probabilities are multiples of 1/64, exact in every float format that engines use. Uniforms keep
clear of the thresholds that they are compared with, and knobs of the values at which a rule's
decision would turn over, so that the outcome is the same in any arithmetic.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from speccascade.rules import RULES
from speccascade.verify import METHODS

SIZE, VOCAB, GRID = 3, 6, 64
CLEAR = 0.01  # of uniforms from thresholds, and of knobs from values where decisions turn over

# Knobs at which a rule is neither drafter nor expert; the default of every other one.
_KNOBS = {
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


def candidates(verifier: str, rule: str, which: int, seed: int) -> Iterator[Case]:
    """Yields cases of a rule without end, for the first that will do."""
    number = 0
    while True:
        key = (seed, METHODS.index(verifier), list(RULES).index(rule), which, number)
        rng = np.random.default_rng(key)
        q1, p1 = _random(rng, 2, SIZE + 1)
        if which % 2:  # as sampled from at another temperature
            q, p = _sharpened(q1), _sharpened(p1)
        else:
            q, p = q1, p1
        yield _case(f"{verifier}/{rule}/{which}", verifier, rule, which, key, (q, p, q1, p1))
        number += 1


def edges(verifier: str, rule: str, seed: int) -> Iterator[Case]:
    """Yields the edge cases of a rule."""
    for number, (what, (q, p), drafted) in enumerate(_edge_tables(seed)):
        key = (seed, METHODS.index(verifier), list(RULES).index(rule), 100 + number)
        name = f"{verifier}/{rule}/{what}"
        yield _case(name, verifier, rule, 0, key, (q, p, q, p), drafted)
    # A token without target mass is not kept at u = 0 either.
    one_hot = np.eye(VOCAB)
    q, p = one_hot[[1, 1, 1, 1]], one_hot[[2, 1, 1, 1]]
    found = _case(f"{verifier}/{rule}/zero uniform", verifier, rule, 0, (seed, 7), (q, p, q, p))
    yield dataclasses.replace(found, accept=np.zeros(SIZE), wanted=0)


def _case(name, verifier, rule, which, key, tables, drafted=SIZE) -> Case:
    q, p, q1, p1 = (np.array(table) for table in tables)
    rng = np.random.default_rng((*key, 1))
    draft = np.array([rng.choice(len(row), p=row) for row in q[:SIZE]])
    draft[drafted:] = -1
    for table in (q, q1):
        table[drafted + 1 :] = 0
    knobs = knobs_of(rule)[which % 2]
    wanted = int(rng.integers(drafted + 1))
    return Case(
        name, verifier, rule, knobs, draft, drafted, q, p, q1, p1, wanted, (*key, 2)
    )


def _edge_tables(seed):
    """Yields (what, (q, p), how many are drafted)."""
    rng = np.random.default_rng((seed, 99))
    one_hot = np.eye(VOCAB)
    q, p = _random(rng, 2, SIZE + 1)
    half = np.repeat([1, 0], VOCAB // 2)
    low, high = (_random(rng, 1, SIZE + 1, allowed)[0] for allowed in (half, 1 - half))
    yield "equal", (p, p), SIZE
    yield "one-hot, equal", (one_hot[[0, 3, 2, 5]],) * 2, SIZE
    yield "one-hot, other", (one_hot[[0, 3, 2, 5]], one_hot[[0, 4, 2, 5]]), SIZE
    yield "one-hot drafts", (one_hot[[0, 3, 2, 5]], p), SIZE
    yield "one-hot expert", (q, one_hot[p.argmax(-1)]), SIZE
    yield "no overlap", (low, high), SIZE
    yield "equal, then not", (np.concatenate([p[:2], q[2:]]), p), SIZE
    for drafted in range(SIZE):
        q, p = _random(rng, 2, SIZE + 1)
        yield f"{drafted} drafted, zero rows", (q, p), drafted
    q, p = (np.pad(table, ((0, 0), (0, 2))) for table in _random(rng, 2, SIZE + 1))
    yield "padded ids", (q, p), SIZE - 1


def _random(rng, count, rows, allowed=1) -> list[np.ndarray]:
    """Returns distributions [rows, V] on the grid, some of their entries zero."""
    weights = rng.gamma(0.7, size=(count, rows, VOCAB)) * allowed
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
