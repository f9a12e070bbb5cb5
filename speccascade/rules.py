"""Every method as a target distribution: `pi = T(q, p, q1, p1; knobs)`.

q and p are drafter and expert *as sampled from* (temperature, truncation); q1 and p1 the same two
at temperature 1, untruncated, from which confidences are read. One lossless verifier (`verify.py`)
turns any pi into tokens. Equation numbers are those of Narasimhan et al., "Faster Cascades via
Speculative Decoding", ICLR 2025.

Engines also use lossy modes that are no such target: they are the rows of `kernels.KERNELS`, which
a `Rule` may name too.

To add a rule, write one function `(d, knobs, vocab) -> (pi, r)` and give it one row in `RULES`. `r`
says what is deferred to the expert (1) or left to the drafter (0): `[..., 1]` per position, `[...,
V]` per token, None where the method has no such notion.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from speccascade import learned_head
from speccascade.errors import UserError
from speccascade.kernels import KERNELS, Kernel
from speccascade.knobs import HeadKnob, Knob, check
from speccascade.vocab import (
    WHOLE,
    Vocab,
    entropy,
    flushed,
    largest_edge,
    positive,
    total_variation,
)


class Distributions(NamedTuple):
    """Next-token distributions `[..., V]`: as sampled from (q, p) and at temperature 1 (q1, p1)."""

    q: jax.Array
    p: jax.Array
    q1: jax.Array
    p1: jax.Array


@dataclasses.dataclass(frozen=True)
class RuleDefinition:
    """A row of the registry.

    Attributes:
      target: `(d, knobs, vocab) -> (pi, r or None)`.
      equation: where the rule is defined.
      knobs: its parameters.
      drafter_at: knobs at which pi is q; None where there are none.
      expert_at: knobs at which pi is p; None where there are none.
      uses_q: whether pi depends on q or q1; if not, no bonus position needs the drafter.
      reads_q1: whether pi or the deferral depends on q1; if so, the rule needs a drafter that has a
        distribution.
      ends_draft: `(q1, knobs, vocab) -> bool [..., 1]`, true where drafting ends before this
        position.
      sequential: whether the rule reads q1 alone, so that a token cascade can ask it before the
        expert.
    """

    target: Callable
    equation: str
    knobs: Mapping[str, Knob | HeadKnob] = dataclasses.field(default_factory=dict)
    drafter_at: Mapping[str, float] | None = None
    expert_at: Mapping[str, float] | None = None
    uses_q: bool = True
    reads_q1: bool = False
    ends_draft: Callable | None = None
    sequential: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule or kernel with its knobs: a pytree whose leaves are the traced ones, `[]` or `[B]`."""

    name: str = dataclasses.field(metadata={"static": True})
    knobs: dict[str, jax.Array]
    static_knobs: tuple[tuple[str, int | learned_head.Head], ...] = dataclasses.field(
        default=(), metadata={"static": True}
    )


class Target(NamedTuple):
    """What a rule makes of the distributions at some positions.

    Attributes:
      pi: float32 `[..., V]`, the target distribution.
      deferral: float32 `[...]`, the deferred mass `sum_v q(v) r(v)`; NaN where the method has no r.
    """

    pi: jax.Array
    deferral: jax.Array


# ---- what targets are made of ----


def _per_position(d, defers):
    """`(1 - r) q + r p` for a decision r `[..., 1]`."""
    return jnp.where(defers, d.p, d.q), defers


def _per_token(d, defers, vocab):
    """Eq. 11: `q(v) (1 - r(v)) + p(v) sum_u r(u) q(u)` for decisions r `[..., V]`."""
    deferred = vocab.sum(jnp.where(defers, d.q, 0.0))
    return jnp.where(defers, 0.0, d.q) + d.p * deferred, defers


# ---- one function per rule ----


def _chow(d, knobs, vocab):
    return _per_position(d, vocab.max(d.q1) < 1 - knobs["alpha"])


def _chowlog(d, knobs, vocab):
    return _per_position(d, entropy(d.q1, vocab) > knobs["alpha"])


def _diff(d, knobs, vocab):
    return _per_position(d, vocab.max(d.q1) < vocab.max(d.p1) - knobs["alpha"])


def _opt(d, knobs, vocab):
    # The cost of a likely rejection is taken off the expert's confidence: disagreement defers
    # *less*.
    cost = knobs["alpha"] * total_variation(d.q, d.p, vocab)
    return _per_position(d, vocab.max(d.q1) < vocab.max(d.p1) - cost)


def _optlog(d, knobs, vocab):
    cost = knobs["alpha"] * total_variation(d.q, d.p, vocab)
    return _per_position(d, entropy(d.q1, vocab) > entropy(d.p1, vocab) + cost)


def _learned(d, knobs, vocab):
    # `opt` with a learned estimate of how much more probably the expert's token is right.
    cost = knobs["alpha"] * total_variation(d.q, d.p, vocab)
    return _per_position(d, learned_head.gain(knobs["head"], d.q, d.p, d.q1, d.p1, vocab) > cost)


def _token_v1(d, knobs, vocab):
    return _per_token(d, d.q1 < vocab.max(d.p1) - knobs["alpha"], vocab)


def _token_v2(d, knobs, vocab):
    return _per_token(d, d.p1 < vocab.max(d.p1) - knobs["alpha"], vocab)


def _token_v3(d, knobs, vocab):
    return _per_token(d, d.p1 < (1 - knobs["alpha"]) * vocab.max(d.p1), vocab)


def _expert(d, knobs, vocab):
    return d.p, None


def _drafter(d, knobs, vocab):
    return d.q, None


def _lossy(d, knobs, vocab):
    # The t at which max(min(q, p / (1 - alpha)), t p) sums to one. The sum is convex, increasing
    # and piecewise linear in t and at least one at t = 1 / (1 - alpha): Newton's steps from there
    # only decrease and end at the root. They stop when no row moves.
    scale = 1 / (1 - knobs["alpha"])
    low = jnp.minimum(d.q, d.p * scale)

    def newton(carry):
        t, _ = carry
        above = t * d.p > low
        rest = 1 - vocab.sum(jnp.where(above, 0.0, low))
        slope = vocab.sum(jnp.where(above, d.p, 0.0))
        step = jnp.where(positive(slope), rest / jnp.where(positive(slope), slope, 1.0), t)
        new = jnp.clip(step, 0.0, t)
        return new, jnp.any(new < t)

    start = (jnp.zeros_like(vocab.max(d.q)) + scale).astype(d.q.dtype)
    t, _ = jax.lax.while_loop(lambda carry: carry[1], newton, (start, jnp.any(start > 0)))
    return jnp.maximum(low, t * d.p), None


def _lenient(d, knobs, vocab):
    accepted = jnp.minimum(d.q, d.p / (1 - knobs["alpha"]))
    residual = jnp.maximum(d.p - d.q, 0.0)
    mass = vocab.sum(residual)
    residual = jnp.where(positive(mass), residual / jnp.where(positive(mass), mass, 1.0), d.p)
    return accepted + jnp.maximum(1 - vocab.sum(accepted), 0.0) * residual, None


def _bild_ends_draft(q1, knobs, vocab):
    return vocab.max(q1) < knobs["fallback"]


def _bild(d, knobs, vocab):
    rolls_back = d.p1 < jnp.exp(-knobs["alpha"])  # -log p1(v) > alpha, without infinities
    falls_back = _bild_ends_draft(d.q1, knobs, vocab)
    return _per_token(d, rolls_back | falls_back, vocab)


def _mixture(d, knobs, vocab):
    return (1 - knobs["alpha"]) * d.p + knobs["alpha"] * d.q, None


def _typical(d, knobs, vocab):
    alpha = knobs["alpha"]
    edge = jnp.minimum(alpha, jnp.sqrt(alpha) * jnp.exp(-entropy(d.p1, vocab)))
    return _per_token(d, d.p1 < edge, vocab)


def _topk_relaxed(d, knobs, vocab):
    # The edge is the k-th largest probability, tied tokens sharing their rank; 0 where k is above
    # the vocabulary.
    top, k = vocab.max(d.p1), min(knobs["k"], jnp.iinfo(jnp.int32).max)
    edge = largest_edge(lambda t: vocab.sum((d.p1 >= t).astype(jnp.int32)) >= k, top)
    return _per_token(d, (d.p1 < edge) | (d.p1 < top - knobs["alpha"]), vocab)


# ---- the registry ----

_ALPHA = {"alpha": Knob()}
_SHARE = {"alpha": Knob(0, 1)}
_LENIENCE = {"alpha": Knob(0, 1, open_high=True)}


def _at(alpha: float, **more: float) -> dict[str, float]:
    return {"alpha": alpha, **more}


RULES: dict[str, RuleDefinition] = {
    "chow": RuleDefinition(
        _chow, "eq. 2", _ALPHA, _at(1), _at(-0.01), reads_q1=True, sequential=True
    ),
    "chowlog": RuleDefinition(
        _chowlog, "log-loss eq. 2", _ALPHA, _at(1e3), _at(-0.01), reads_q1=True, sequential=True
    ),
    "diff": RuleDefinition(_diff, "eq. 5", _ALPHA, _at(1), _at(-1), reads_q1=True),
    "opt": RuleDefinition(_opt, "eq. 10", _ALPHA, _at(1e9), _at(-1e9), reads_q1=True),
    "optlog": RuleDefinition(_optlog, "log-loss eq. 9", _ALPHA, _at(1e9), _at(-1e9), reads_q1=True),
    "learned": RuleDefinition(
        _learned,
        "eq. 10, its plug-in estimate learned",
        {"alpha": Knob(), "head": HeadKnob()},
        {"alpha": 1e9},
        {"alpha": -1e9},
        reads_q1=True,
    ),
    "token_v1": RuleDefinition(_token_v1, "eq. 11, 13", _ALPHA, _at(1), _at(-1), reads_q1=True),
    "token_v2": RuleDefinition(_token_v2, "eq. 11, 14", _ALPHA, _at(1), _at(-0.01)),
    "token_v3": RuleDefinition(_token_v3, "eq. 11, 15", _ALPHA, _at(1), _at(-0.01)),
    "spec": RuleDefinition(_expert, "Leviathan et al. 2023", expert_at={}, uses_q=False),
    "expert": RuleDefinition(_expert, "the expert's law", expert_at={}, uses_q=False),
    "drafter": RuleDefinition(_drafter, "the drafter's law", drafter_at={}),
    "lossy": RuleDefinition(_lossy, "Tran-Thien 2023", _LENIENCE, None, _at(0)),
    "lenient": RuleDefinition(_lenient, "Leviathan et al. 2023", _LENIENCE, None, _at(0)),
    "bild": RuleDefinition(
        _bild,
        "Kim et al. 2023",
        {"alpha": Knob(), "fallback": Knob(0, default=0.6)},
        _at(1e3, fallback=0),
        _at(-0.01),
        reads_q1=True,
        ends_draft=_bild_ends_draft,
    ),
    "mixture": RuleDefinition(_mixture, "collaborative decoding", _SHARE, _at(1), _at(0)),
    "typical": RuleDefinition(_typical, "Cai et al. 2024", _SHARE, _at(0), None),
    "topk_relaxed": RuleDefinition(
        _topk_relaxed,
        "top-k acceptance",
        {"alpha": Knob(), "k": Knob(1, default=5, static=True)},
        None,
        _at(-0.01),
    ),
}


def definition(name: str) -> RuleDefinition | Kernel:
    """Returns the registry's row, a kernel's too; raises UserError for a name that it lacks."""
    if not isinstance(name, str) or name not in (*RULES, *KERNELS):
        raise UserError(f"rule {name!r} is unknown; choose one of: {', '.join(RULES)}")
    return RULES.get(name) or KERNELS[name]


def make(name: str, **knobs: Any) -> Rule:
    """Makes a rule.

    Args:
      name: a key of `RULES` or `KERNELS`.
      **knobs: the rule's knobs, each a number or an array `[B]`; static ones a Python int, or
        the name of a head.

    Raises:
      UserError: the name is unknown; and as `knobs.check` does.
    """
    known = definition(name).knobs
    checked = check(name, known, knobs)
    static = tuple((key, value) for key, value in checked.items() if known[key].static)
    return Rule(name, {k: v for k, v in checked.items() if not known[k].static}, static)


def knobs_of(rule: Rule, ndim: int) -> dict[str, Any]:
    """Returns the knobs, traced ones `[]` or `[B]` lifted to broadcast against an array `[B, ...]`.

    Args:
      rule: from `make`.
      ndim: of that array.
    """

    def lift(knob):
        knob = jnp.asarray(knob)
        return knob if knob.ndim == 0 else knob.reshape(-1, *(1,) * (ndim - 1))

    return {**{key: lift(knob) for key, knob in rule.knobs.items()}, **dict(rule.static_knobs)}


def apply(rule: Rule, d: Distributions, vocab: Vocab = WHOLE) -> Target:
    """Returns the rule's target distribution with the mass it defers.

    Args:
      rule: from `make`; knobs of shape [B] belong to the first axis of the distributions.
      d: distributions `[..., V]`; their subnormal numbers count as 0.
      vocab: how to reduce over V.
    """
    d = Distributions(*map(flushed, d))
    pi, r = RULES[rule.name].target(d, knobs_of(rule, d.q.ndim), vocab)
    if r is None:
        return Target(pi, jnp.full(d.q.shape[:-1], jnp.nan, d.q.dtype))
    return Target(pi, vocab.sum(jnp.where(r, d.q, 0.0))[..., 0])


def target(
    rule: Rule, q: jax.Array, p: jax.Array, q1: jax.Array, p1: jax.Array, vocab: Vocab = WHOLE
) -> jax.Array:
    """Returns pi, `[..., V]`, for distributions `[..., V]`; see `apply`."""
    return apply(rule, Distributions(q, p, q1, p1), vocab).pi


def uses_q(rule: Rule) -> bool:
    """Returns whether pi depends on the drafter, so that the bonus position needs its q."""
    return definition(rule.name).uses_q


def check_without_distribution(name: str) -> None:
    """Raises UserError where a rule cannot follow a drafter that has tokens and no distribution.

    Those are the rules that read q1, and the one that is the drafter's own law.
    """

    def works(row: Any) -> bool:
        return not row.reads_q1 and row.target is not _drafter

    if not works(definition(name)):
        known = ", ".join(other for other, row in RULES.items() if works(row))
        raise UserError(
            f"rule {name} needs the drafter's distribution and a lookup has none; take one of "
            f"{known}, or a model to draft"
        )


def can_end_draft(rule: Rule) -> bool:
    """Returns whether the rule may end a block's drafting early."""
    return definition(rule.name).ends_draft is not None


def ends_draft(rule: Rule, q1: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns bool `[...]`: whether drafting ends before a position of confidence `q1 [..., V]`."""
    row = definition(rule.name)
    if row.ends_draft is None:
        return jnp.zeros(q1.shape[:-1], bool)
    return row.ends_draft(flushed(q1), knobs_of(rule, q1.ndim), vocab)[..., 0]


def check_sequential(rule: Rule) -> None:
    """Raises UserError where the rule needs the expert's distribution to decide."""
    if not definition(rule.name).sequential:
        known = ", ".join(name for name, row in RULES.items() if row.sequential)
        raise UserError(
            f"rule {rule.name} needs the expert to decide; a token cascade takes {known}"
        )


def defers_before_expert(rule: Rule, q1: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
    """Returns bool `[...]`: what a rule that reads q1 alone decides before the expert has run."""
    d = Distributions(*[flushed(q1)] * 4)
    _, r = RULES[rule.name].target(d, knobs_of(rule, q1.ndim), vocab)
    return r[..., 0]
