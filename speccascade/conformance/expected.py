"""What must come out of a case, by the rules and the verifier of this project, in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade import rules, verify
from speccascade.conformance.cases import CLEAR, GRID, SIZE, Case
from speccascade.conformance.plain import RIGHT, Block, Verifier

# Rules that decide by thresholds: of the others pi is continuous in all that goes in.
_CONTINUOUS = ("lossy", "lenient", "mixture")
_TRIES = 1000


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
    with jax.enable_x64(True):
        rule = rules.make(case.rule, **knobs)
        rule = jax.tree.map(lambda knob: jnp.asarray(knob, jnp.float64), rule)
        return np.asarray(rules.target(rule, *(jnp.asarray(x, jnp.float64) for x in tables)))


def is_clear(case: Case, pi: np.ndarray) -> bool:
    """Returns whether no decision of the rule is near to turning over.

    Where rules decide, pi depends on alpha and fallback through their decisions alone: it stays the
    same to the bit where none turns over.
    """
    if case.rule in _CONTINUOUS:
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


def uniforms(case: Case, pi: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Returns acceptance uniforms [N] and that of the token, clear of all thresholds.

    So many tokens are kept as the case asks for, if that can be. None where nothing is clear.
    """
    plain = RIGHT[case.verifier]
    block = block_of(plain, case, pi)
    chances = np.array(plain.chances(block))
    rng = np.random.default_rng(case.seed)
    found = None
    for _ in range(_TRIES):
        accept = _drawn(rng, SIZE) if case.accept is None else case.accept
        token = float(_drawn(rng, 1)[0])
        kept, _ = plain.outcome(block, accept, token)
        edges = np.cumsum(plain.after(block, kept))[:-1]
        near = [abs(edges - token).min()]
        if case.accept is None and case.drafted:
            near.append(abs(chances - accept[: case.drafted]).min())
        if min(near) > CLEAR:
            if kept == case.wanted:
                return accept, token
            found = found or (accept, token)
    return found


def outcome(case: Case, pi: np.ndarray, accept: np.ndarray, token: float) -> Outcome:
    """Returns what must come out, by `verify` and `verify.law`."""
    with jax.enable_x64(True):
        rows = [jnp.asarray(x)[None] for x in (np.maximum(case.draft, 0), case.q[:-1], pi)]
        options = {"length": jnp.asarray([case.drafted]), "method": case.verifier}
        given = verify.Uniforms(jnp.asarray(accept)[None], jnp.asarray([token]))
        verdict = verify.verify(None, *rows, uniforms=given, **options)
        accepted, after = (np.asarray(x[0]) for x in verify.law(*rows, **options))
    shares = accepted[:, None]
    law = np.where(shares > 0, shares * np.where(shares > 0, after, 0), 0)
    end = case.drafted + 1
    kept, following = int(verdict.num_accepted[0]), int(verdict.next_token[0])
    return Outcome(pi[:end], kept, following, law[:end])


def _drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns uniforms as odd multiples of 1/512: exact, and none of them is 0."""
    return (2 * rng.integers(4 * GRID, size=count) + 1) / (8 * GRID)
