"""What must come out of a case, by the rules and the verifier of this project, in float64."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules, verify
from speccascade.conformance.cases import CLEAR, GRID, PADDING, SIZE, VOCAB, Case
from speccascade.conformance.plain import RIGHT, Block, Verifier

# Rules that decide by thresholds: of the others pi is continuous in all that goes in.
CONTINUOUS = ("lossy", "lenient", "mixture")
_TRIES, _CHOICE = 100, 12
_WIDTH = VOCAB + PADDING


class Outcome(NamedTuple):
    """What comes out; L is how many tokens were drafted.

    Attributes:
      target: float64 [L + 1, V].
      num_accepted: draft tokens kept.
      next_token: the smallest id whose cumulative probability exceeds the uniform.
      law: float64 [L + 1, V], the probability that i tokens are kept and then one follows.
    """

    target: np.ndarray
    num_accepted: int
    next_token: int
    law: np.ndarray


def target(case: Case, **changed) -> np.ndarray:
    """Returns the rule's target, float64 [N + 1, V].

    Args:
      case: what goes in.
      **changed: knobs of the rule, or distributions, in the place of the case's.
    """
    knobs = {name: changed.get(name, value) for name, value in case.knobs.items()}
    tables = [changed.get(name, getattr(case, name)) for name in rules.Distributions._fields]
    rule = rules.make(case.rule, **knobs)
    with jax.enable_x64(True):
        traced = jax.tree.map(lambda knob: jnp.asarray(knob, jnp.float64), rule)
        return np.asarray(_target(traced, *map(_wide, tables)))[:, : case.p.shape[1]]


def _wide(table: np.ndarray) -> jax.Array:
    """Returns a table [..., V] with ids of no mass behind the others: one shape compiles once."""
    missing = [(0, 0)] * (table.ndim - 1) + [(0, _WIDTH - table.shape[-1])]
    return jnp.asarray(np.pad(table, missing))


_target = jax.jit(rules.target)


def is_clear(case: Case, pi: np.ndarray) -> bool:
    """Returns whether no decision of the rule is near to turning over.

    Where rules decide, pi depends on alpha and fallback through their decisions alone: it stays the
    same to the bit where none turns over.
    """
    if case.rule in CONTINUOUS:
        return True
    for name in sorted(set(case.knobs) & {"alpha", "fallback"}):
        for step in (-CLEAR, CLEAR):
            if not np.array_equal(target(case, **{name: case.knobs[name] + step}), pi):
                return False
    if "k" in case.knobs:
        ranked = np.sort(case.p1, -1)
        return bool(np.all(ranked[:, -case.knobs["k"]] > ranked[:, -case.knobs["k"] - 1]))
    return True


def block_of(verifier: Verifier, case: Case, pi: np.ndarray) -> Block:
    """Returns a case as the plain verifier takes it."""
    return verifier.block(case.draft, case.drafted, case.q, pi, case.p)


def uniforms(
    case: Case, pi: np.ndarray, wrong: Sequence[tuple[Verifier, np.ndarray]]
) -> tuple[np.ndarray, float] | None:
    """Returns acceptance uniforms [N] and that of the token, clear of all thresholds.

    Args:
      case: so many tokens are kept as it asks for, if that can be.
      pi: the target.
      wrong: verifiers with a mistake, each with what it takes for the target: of some uniforms
        those are taken by which most of them are told.

    Returns:
      None where nothing is clear.
    """
    plain = RIGHT[case.verifier]
    block = block_of(plain, case, pi)
    others = [(verifier, block_of(verifier, case, other)) for verifier, other in wrong]
    chances = np.array(plain.chances(block))
    rng = np.random.default_rng(case.seed)
    drawn = _drawn(rng, (_TRIES, SIZE)) if case.accept is None else case.accept[None]
    distance = abs(drawn[:, : case.drafted] - chances)
    clear = drawn[(distance > CLEAR).all(1) | (case.accept is not None)]
    tokens = _drawn(rng, _TRIES)
    found = []
    for accept in clear:
        kept = plain.kept((accept[: case.drafted] < chances).tolist())
        edges = np.cumsum(plain.after(block, kept))[:-1]
        apart = tokens[abs(tokens[:, None] - edges).min(1) > CLEAR]
        found += [(abs(kept - case.wanted), accept, float(token)) for token in apart[:_CHOICE]]
    found.sort(key=lambda one: one[0])

    def told(accept: np.ndarray, token: float) -> int:
        right = plain.outcome(block, accept, token)
        return sum(verifier.outcome(own, accept, token) != right for verifier, own in others)

    nearest = [one[1:] for one in found if one[0] == found[0][0]][:_CHOICE]
    return max(nearest, key=lambda one: told(*one), default=None)


@functools.partial(jax.jit, static_argnames="method")
def _verified(draft, q, pi, length, accept, token, method):
    rows, options = (draft, q, pi), {"length": length, "method": method}
    drawn = verify.Uniforms(accept, token)
    return verify.verify(None, *rows, uniforms=drawn, **options), verify.law(*rows, **options)


def outcome(case: Case, pi: np.ndarray, accept: np.ndarray, token: float) -> Outcome:
    """Returns what must come out, by `verify` and `verify.law`."""
    scalars = np.int64(case.drafted), accept, token
    with jax.enable_x64(True):
        tables = jnp.asarray(np.maximum(case.draft, 0)), _wide(case.q[:-1]), _wide(pi)
        batch = (x[None] for x in (*tables, *map(jnp.asarray, scalars)))
        verdict, law = _verified(*batch, method=case.verifier)
        accepted, after = (np.asarray(x[0]) for x in law)
    shares = accepted[:, None]
    law = np.where(shares > 0, shares * np.where(shares > 0, after, 0), 0)
    law, end = law[:, : pi.shape[1]], case.drafted + 1
    return Outcome(pi[:end], int(verdict.num_accepted[0]), int(verdict.next_token[0]), law[:end])


def _drawn(rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
    """Returns uniforms as odd multiples of 1/512: exact, and none of them is 0."""
    return (2 * rng.integers(4 * GRID, size=shape) + 1) / (8 * GRID)
