"""What is sure of a rule where distributions are known in part: a row for each in `BOUNDS`.

The rules themselves are in `rules.py`; here stands of each how its rejection probability TV(pi, q)
and the mass that it defers lie between two bounds. A rule without a row is replayed from whole
distributions alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from speccascade import learned_head
from speccascade.errors import UserError
from speccascade.inference.setting import Pairs, Setting
from speccascade.replay import head, known
from speccascade.replay.between import Between
from speccascade.replay.known import Known
from speccascade.workdir.distributions import Listed, Recorded


class Bounds(NamedTuple):
    """What a rule does at P positions.

    Attributes:
      rejection: TV(pi, q), float64 [P].
      deferral: the deferred mass; NaN where the method has no such thing.
    """

    rejection: Between
    deferral: Between


class Partly(NamedTuple):
    """What is known of the `Distributions` that a rule reads.

    Attributes:
      q: as sampled from.
      p: likewise.
      q1: at temperature 1.
      p1: likewise.
      q1_entropy: in nats.
      p1_entropy: likewise.
      q_chosen: int64 [P], the drafter's most probable token, which is listed.
      p_chosen: int64 [P], the expert's.
    """

    q: Known
    p: Known
    q1: Known
    p1: Known
    q1_entropy: Between
    p1_entropy: Between
    q_chosen: np.ndarray
    p_chosen: np.ndarray


class _Decision(NamedTuple):
    """What is deferred, bool: [P] by position; or [P, K] by listed token, and [P] of the others."""

    sure: np.ndarray
    maybe: np.ndarray
    rest_sure: np.ndarray | None = None
    rest_maybe: np.ndarray | None = None


def partly(recorded: Recorded, setting: Setting) -> Partly:
    """Returns what is known of an answer's positions under a setting's temperature and limits."""
    drafter, expert = cast("Listed", recorded.drafter), cast("Listed", recorded.expert)
    size, top = recorded.vocab_size, recorded.top
    ids = known.union(drafter, expert)

    def sampled_from(model: Listed, q1: Known, limits: Pairs) -> Known:
        if setting.temperature > 0:
            return known.sampled(q1, setting.temperature, dict(limits))
        return known.greedy(model.chosen, q1)

    q1 = known.at_temperature_one(drafter, ids, size, top)
    p1 = known.at_temperature_one(expert, ids, size, top)
    return Partly(
        q=sampled_from(drafter, q1, setting.drafter_truncation),
        p=sampled_from(expert, p1, setting.expert_truncation),
        q1=q1,
        p1=p1,
        q1_entropy=Between(*known.entropy(drafter, size, top)),
        p1_entropy=Between(*known.entropy(expert, size, top)),
        q_chosen=drafter.chosen,
        p_chosen=expert.chosen,
    )


def of(setting: Setting, partly: Partly) -> Bounds:
    """Returns the bounds of a setting's rule."""
    check(setting.rule)
    with np.errstate(divide="ignore", invalid="ignore"):
        return BOUNDS[setting.rule](partly, dict(setting.knobs))


def check(rule: str) -> None:
    """Raises UserError where nothing is known here of a rule."""
    if rule not in BOUNDS:
        raise UserError(
            f"rule {rule} has no bounds where only the most probable tokens were saved; save them "
            "whole, or give it a row in speccascade/replay/bounds.py"
        )


# ---- what bounds are made of ----


def _top(x: Known) -> Between:
    return Between(x.low.max(1), x.high.max(1))


def _variation(q: Known, p: Known, scale: float = 1.0) -> Between:
    """Bounds of `sum_v max(0, q(v) - scale p(v))`, [P]; at scale 1 TV(q, p)."""

    def least(a, b, x, y):
        here = np.maximum(x * a.low - y * b.high, 0).sum(1)
        return here + np.maximum(x * a.rest_low - y * b.rest_high, 0)

    def most(a, b, x, y):
        return np.maximum(x * a.high - y * b.low, 0).sum(1) + x * a.rest_high

    # The positive and the negative part of q - scale p differ by 1 - scale.
    low = np.maximum(least(q, p, 1, scale), least(p, q, scale, 1) + 1 - scale)
    high = np.minimum(most(q, p, 1, scale), most(p, q, scale, 1) + 1 - scale)
    return _ordered(np.maximum(low, 0), np.minimum(high, 1))


def _ordered(low: np.ndarray, high: np.ndarray) -> Between:
    """Returns bounds in order, where rounding crossed them."""
    return Between(np.minimum(low, high), np.maximum(low, high))


def _below(x: Between, edge: Between) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether x is below an edge for sure, and perhaps."""
    return x.high < edge.low, x.low < edge.high


def _tokens_below(x: Known, edge: Between) -> _Decision:
    """Returns the tokens whose probability is below an edge [P]."""
    low, high = edge.low[:, None], edge.high[:, None]
    return _Decision(x.high < low, x.low < high, x.most < edge.low, edge.high > 0)


def _shifted(x: Between, by: Any) -> Between:
    return Between(x.low - by, x.high - by)


def _no_deferral(rejection: Between) -> Bounds:
    none = np.full(len(rejection.low), np.nan)
    return Bounds(rejection, Between(none, none))


def _by_position(d: Partly, sure: np.ndarray, maybe: np.ndarray) -> Bounds:
    apart = _variation(d.q, d.p)
    rejection = Between(np.where(sure, apart.low, 0.0), np.where(maybe, apart.high, 0.0))
    return Bounds(rejection, Between(sure.astype(np.float64), maybe.astype(np.float64)))


def _by_token(d: Partly, r: _Decision) -> Bounds:
    """Of `q (1 - r) + p D` with the deferred mass D: rejected is `sum_v max(0, q r - p D)`."""
    q, p = d.q, d.p
    # From what is deferred, and from what is not.
    low = np.where(r.sure, q.low, 0).sum(1) + np.where(r.rest_sure, q.rest_low, 0)
    high = np.where(r.maybe, q.high, 0).sum(1) + np.where(r.rest_maybe, q.rest_high, 0)
    kept_low = np.where(r.maybe, 0, q.low).sum(1) + np.where(r.rest_maybe, 0, q.rest_low)
    kept_high = np.where(r.sure, 0, q.high).sum(1) + np.where(r.rest_sure, 0, q.rest_high)
    mass = _ordered(np.maximum(low, 1 - kept_high), np.clip(high, 0, 1 - kept_low))
    deferred = Between(np.where(r.sure, q.low, 0), np.where(r.maybe, q.high, 0))
    rest = Between(np.where(r.rest_sure, q.rest_low, 0), np.where(r.rest_maybe, q.rest_high, 0))
    given = Between(p.low * mass.low[:, None], p.high * mass.high[:, None])
    rest_given = Between(p.rest_low * mass.low, p.rest_high * mass.high)

    def least(a, b, rest_a, rest_b):
        return np.maximum(a.low - b.high, 0).sum(1) + np.maximum(rest_a.low - rest_b.high, 0)

    def most(a, b, rest_a):
        return np.maximum(a.high - b.low, 0).sum(1) + rest_a.high

    # Both have mass D: what one has beyond the other is as much as the other has beyond it.
    low = np.maximum(
        least(deferred, given, rest, rest_given), least(given, deferred, rest_given, rest)
    )
    high = np.minimum(most(deferred, given, rest), most(given, deferred, rest_given))
    return Bounds(_ordered(low, np.minimum(high, mass.high)), mass)


# ---- one row per rule ----


def _opt(d: Partly, x: Between, y: Between, alpha: float) -> Bounds:
    """Defers where `x < y - alpha TV(q, p)`."""
    cost = _variation(d.q, d.p)
    costs = alpha * cost.low, alpha * cost.high
    edge = Between(y.low - np.maximum(*costs), y.high - np.minimum(*costs))
    return _by_position(d, *_below(x, edge))


def _negative(x: Between) -> Between:
    return Between(-x.high, -x.low)


def _constant(d: Partly, value: float) -> Between:
    return Between(*(np.full(len(d.q.low), value),) * 2)


def _either(one: _Decision, other: _Decision) -> _Decision:
    return _Decision(*(a | b for a, b in zip(one, other, strict=True)))


def _bild(d: Partly, k: Mapping[str, float]) -> Bounds:
    rolls_back = _tokens_below(d.p1, _constant(d, np.exp(-k["alpha"])))
    sure, maybe = _below(_top(d.q1), _constant(d, k["fallback"]))
    every = np.ones(d.q.low.shape, bool)
    falls_back = _Decision(every & sure[:, None], every & maybe[:, None], sure, maybe)
    return _by_token(d, _either(rolls_back, falls_back))


def _typical(d: Partly, k: Mapping[str, float]) -> Bounds:
    alpha = k["alpha"]
    edges = [np.minimum(alpha, np.sqrt(alpha) * np.exp(-h)) for h in d.p1_entropy]
    return _by_token(d, _tokens_below(d.p1, Between(edges[1], edges[0])))


def _topk_relaxed(d: Partly, k: Mapping[str, float]) -> Bounds:
    rank, top = int(k["k"]), _top(d.p1)
    listed = (d.p1.ids >= 0).sum(1)
    lows, highs = (-np.sort(-x, axis=1) for x in (d.p1.low, d.p1.high))
    none = np.zeros(len(listed))
    low = lows[:, rank - 1] if rank <= lows.shape[1] else none
    high = highs[:, rank - 1] if rank <= highs.shape[1] else none
    high = np.where(rank <= listed + d.p1.others, np.maximum(high, d.p1.most), 0.0)
    above = (highs > d.p1.most[:, None]).sum(1) >= rank  # no other one is among the k largest
    high = np.where(above, highs[:, min(rank, highs.shape[1]) - 1], high)
    ranks = _tokens_below(d.p1, Between(low, high))
    return _by_token(d, _either(ranks, _tokens_below(d.p1, _shifted(top, k["alpha"]))))


def _at(x: Known, ids: np.ndarray) -> Between:
    """Returns the probability of a listed token [P]."""
    here = x.ids == ids[:, None]
    return Between((x.low * here).sum(1), (x.high * here).sum(1))


def _learned(d: Partly, k: Mapping[str, Any]) -> Bounds:
    """See `learned_head.gain`."""
    drafted, best = d.q_chosen, d.p_chosen
    same = drafted == best
    features = (
        _top(d.q1),
        _top(d.p1),
        d.q1_entropy,
        d.p1_entropy,
        _variation(d.q1, d.p1),
        _at(d.p1, drafted),
        _at(d.q1, best),
        Between(same * 1.0, same * 1.0),
    )
    of_drafter, of_expert = head.right(learned_head.load(k["head"]), features)
    more = []
    for ids in (drafted, best):
        p, q = _at(d.p, ids), _at(d.q, ids)
        more.append(Between(p.low - q.high, p.high - q.low))
    on_drafted = Between(*(np.where(same, 0.0, x) for x in more[0]))
    gain = on_drafted.times(of_drafter).plus(more[1].times(of_expert))
    cost = Between(*(k["alpha"] * x for x in _variation(d.q, d.p)))
    return _by_position(d, *_below(_ordered(*cost), gain))


def _share(d: Partly, k: Mapping[str, float]) -> Bounds:
    """Of both lossy verifiers what is rejected is what q has beyond `p / (1 - alpha)`."""
    return _no_deferral(_variation(d.q, d.p, 1 / (1 - k["alpha"])))


def _mixture(d: Partly, k: Mapping[str, float]) -> Bounds:
    apart = _variation(d.q, d.p)
    return _no_deferral(Between(*((1 - k["alpha"]) * x for x in apart)))


def _expert(d: Partly, k: Mapping[str, float]) -> Bounds:
    return _no_deferral(_variation(d.q, d.p))


BOUNDS: dict[str, Callable[[Partly, Mapping[str, Any]], Bounds]] = {
    "chow": lambda d, k: _by_position(d, *_below(_top(d.q1), _constant(d, 1 - k["alpha"]))),
    "chowlog": lambda d, k: _by_position(
        d, *_below(_negative(d.q1_entropy), _constant(d, -k["alpha"]))
    ),
    "diff": lambda d, k: _by_position(d, *_below(_top(d.q1), _shifted(_top(d.p1), k["alpha"]))),
    "opt": lambda d, k: _opt(d, _top(d.q1), _top(d.p1), k["alpha"]),
    "optlog": lambda d, k: _opt(d, _negative(d.q1_entropy), _negative(d.p1_entropy), k["alpha"]),
    "learned": _learned,
    "token_v1": lambda d, k: _by_token(d, _tokens_below(d.q1, _shifted(_top(d.p1), k["alpha"]))),
    "token_v2": lambda d, k: _by_token(d, _tokens_below(d.p1, _shifted(_top(d.p1), k["alpha"]))),
    "token_v3": lambda d, k: _by_token(
        d, _tokens_below(d.p1, _ordered(*((1 - k["alpha"]) * x for x in _top(d.p1))))
    ),
    "spec": _expert,
    "expert": _expert,
    "drafter": lambda d, k: _no_deferral(_constant(d, 0.0)),
    "lossy": _share,
    "lenient": _share,
    "bild": _bild,
    "mixture": _mixture,
    "typical": _typical,
    "topk_relaxed": _topk_relaxed,
}
