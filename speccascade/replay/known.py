"""A distribution of which some tokens are listed, and what is sure of it.

Everything is a pair of bounds. Of the others only their mass R, their number n and the most that
one of them can have, c, are known; whatever n numbers in [0, c] of sum R they are, the bounds hold.
"""

from typing import NamedTuple

import numpy as np

from speccascade.workdir.distributions import Listed

# By which sums of probabilities may be rounded where they are compared with a limit.
_ROUNDING = 1e-6


class Known(NamedTuple):
    """Bounds of a distribution at P positions.

    Attributes:
      ids: int64 [P, K], listed tokens; -1 where a position has fewer, with bounds of 0.
      low: float64 [P, K], their probabilities are at least so much.
      high: float64 [P, K], and at most so much.
      rest_low: float64 [P], the mass of all others.
      rest_high: float64 [P].
      most: float64 [P], the most that one of the others can have.
      others: int64 [P], how many there are.
    """

    ids: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rest_low: np.ndarray
    rest_high: np.ndarray
    most: np.ndarray
    others: np.ndarray


def union(one: Listed, other: Listed) -> np.ndarray:
    """Returns the tokens that either lists at each position, int64 [P, K], -1 behind them."""
    both = np.sort(np.concatenate([one.ids, other.ids], axis=1), axis=1)[:, ::-1]
    both[:, 1:][both[:, 1:] == both[:, :-1]] = -1
    return np.sort(both, axis=1)[:, ::-1]


def at_temperature_one(listed: Listed, ids: np.ndarray, size: int, top: int) -> Known:
    """Returns what is known of a model's distribution as it was saved.

    Args:
      listed: what it lists.
      ids: from `union`.
      size: V.
      top: so many of the most probable tokens are listed.
    """
    own = np.where(listed.ids >= 0, listed.probs, 0.0)
    kth = -np.sort(-own, axis=1)[:, top - 1]
    where = (ids[:, :, None] == listed.ids[:, None, :]) & (ids[:, :, None] >= 0)
    probs = np.einsum("pkj,pj->pk", where, own)
    # What the other model alone lists is one of this model's others.
    missing = (ids >= 0) & ~where.any(2)
    others = size - (listed.ids >= 0).sum(1)
    most = np.where(others > 0, np.minimum(kth, listed.rest_high), 0.0)
    count, left = missing.sum(1), others - missing.sum(1)
    # Where the others have all they can.
    alone = np.maximum(listed.rest_low - most * (others - 1), 0.0)
    low = np.where(missing, alone[:, None], probs)
    high = np.where(missing, most[:, None], probs)
    rest_low = np.maximum(listed.rest_low - most * count, 0.0)
    # Of a rest that is known and shared with nobody the sum is that, however it was rounded.
    rest_high = np.where(count == 0, listed.rest_high, np.minimum(listed.rest_high, most * left))
    rest_high = np.where(left > 0, rest_high, 0.0)
    rest_low = np.minimum(rest_low, rest_high)
    return Known(ids, low, high, rest_low, rest_high, np.where(left > 0, most, 0.0), left)


def entropy(listed: Listed, size: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns bounds of the entropy at temperature 1 in nats, [P] each; equal if saved."""
    own = np.where(listed.ids >= 0, listed.probs, 0.0)
    kth = -np.sort(-own, axis=1)[:, top - 1]
    others = np.maximum(size - (listed.ids >= 0).sum(1), 1)
    known = -_x_log(own, own).sum(1)
    # The others have least where they are as unequal as they may be, and most where they are equal.
    low = known - _x_log(listed.rest_low, np.minimum(kth, 1.0))
    high = known - _x_log(listed.rest_high, listed.rest_high / others)
    told = np.isfinite(listed.entropy)
    low = np.where(told, listed.entropy, low)
    return low, np.maximum(np.where(told, listed.entropy, high), low)


def _x_log(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x * np.log(np.where(y > 0, y, 1.0)), 0.0)


def greedy(chosen: np.ndarray, known: Known) -> Known:
    """Returns all mass on one listed token [P]."""
    one = (known.ids == chosen[:, None]).astype(np.float64)
    none = np.zeros(len(one))
    return known._replace(low=one, high=one, rest_low=none, rest_high=none, most=none)


def sampled(known: Known, temperature: float, limits: dict[str, float]) -> Known:
    """Returns the distribution that is sampled from, see `sampling.distribution`.

    Args:
      known: at temperature 1.
      temperature: above 0.
      limits: `top_k`, `top_p`, `min_p`, as far as there are any.
    """
    weights = _warmed(known, 1.0 / temperature)
    if "top_k" in limits:
        weights = _top_k(weights, limits["top_k"])
    keep = _all(weights)
    if limits.get("top_p", 1.0) < 1:
        keep = _and(keep, _within_top_p(weights, limits["top_p"]))
    if "min_p" in limits:
        keep = _and(keep, _within_min_p(weights, limits["min_p"]))
    return _normalised(_kept(weights, keep))


def _warmed(known: Known, power: float) -> Known:
    """Returns weights: the largest is about 1, whatever the power."""
    top = known.high.max(1)
    low, high = ((x / top[:, None]) ** power for x in (known.low, known.high))
    low, high = (np.where(known.ids >= 0, x, 0.0) for x in (low, high))
    most = known.most / top
    rest_low, rest_high = known.rest_low / top, known.rest_high / top
    count = np.maximum(known.others, 1)

    def equal(rest):  # all others alike
        return count * (rest / count) ** power

    def unequal(rest):  # as few of them as may be, each with the most
        safe = np.where(most > 0, most, 1.0)
        return np.where(rest > 0, rest * safe ** (power - 1), 0.0)

    # A sum of convex functions is least where all are alike; of concave ones it is most there.
    bounds = (equal(rest_low), unequal(rest_high))
    if power < 1:
        bounds = (unequal(rest_low), equal(rest_high))
    there = known.others > 0
    rest_low, rest_high = (np.where(there, x, 0.0) for x in bounds)
    return known._replace(
        low=low, high=high, rest_low=rest_low, rest_high=rest_high, most=most**power * there
    )


class _Keep(NamedTuple):
    """Which tokens a limit keeps: for sure, and perhaps; bool [P, K] each, of the others [P]."""

    sure: np.ndarray
    maybe: np.ndarray
    rest_sure: np.ndarray
    rest_maybe: np.ndarray


def _all(weights: Known) -> _Keep:
    here, there = np.ones(weights.low.shape, bool), np.ones(len(weights.low), bool)
    return _Keep(here, here, there, there)


def _and(one: _Keep, other: _Keep) -> _Keep:
    return _Keep(*(a & b for a, b in zip(one, other, strict=True)))


def _kept(weights: Known, keep: _Keep) -> Known:
    return weights._replace(
        low=np.where(keep.sure, weights.low, 0.0),
        high=np.where(keep.maybe, weights.high, 0.0),
        rest_low=np.where(keep.rest_sure, weights.rest_low, 0.0),
        rest_high=np.where(keep.rest_maybe, weights.rest_high, 0.0),
        most=np.where(keep.rest_maybe, weights.most, 0.0),
    )


def _above(weights: Known, sure: np.ndarray, maybe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns sums over the tokens above each listed one, [P, K], from below and above.

    Args:
      weights: the tokens.
      sure: [P, K], what those that are surely above count.
      maybe: [P, K], what those that may be above count.
    """
    own = weights.ids >= 0
    surely = (weights.low[:, None, :] > weights.high[:, :, None]) & own[:, None, :]
    perhaps = (weights.high[:, None, :] > weights.low[:, :, None]) & own[:, None, :]
    perhaps &= ~np.eye(own.shape[1], dtype=bool)
    return np.einsum("pkj,pj->pk", surely, sure), np.einsum("pkj,pj->pk", perhaps, maybe)


def _top_k(weights: Known, k: float) -> Known:
    own = (weights.ids >= 0).astype(np.float64)
    least, most = _above(weights, own, own)
    most += np.where(weights.most[:, None] > weights.low, weights.others[:, None], 0)
    above_rest = ((weights.low > weights.most[:, None]) & (weights.ids >= 0)).sum(1)
    every = weights.others + own.sum(1) <= k
    keep = _Keep((most < k) | every[:, None], least < k, every, above_rest < k)
    return _kept(weights, keep)


def _within_top_p(weights: Known, mass: float) -> _Keep:
    """A token is kept unless those above it have the mass already."""
    least, most = _above(weights, weights.low, weights.high)
    most += np.where(weights.most[:, None] > weights.low, weights.rest_high[:, None], 0.0)
    everything_low = weights.low.sum(1) + weights.rest_low
    everything_high = weights.high.sum(1) + weights.rest_high

    def share_low(part):
        return part / everything_high[:, None]

    def share_high(part):
        return part / np.maximum(everything_low, 1e-300)[:, None]

    above = weights.low > weights.most[:, None]
    above_rest = np.where(above, weights.low, 0.0).sum(1) / everything_high
    return _Keep(
        share_high(most) < mass - _ROUNDING,
        share_low(least) < mass + _ROUNDING,
        np.zeros(len(above), bool),
        above_rest < mass + _ROUNDING,
    )


def _within_min_p(weights: Known, share: float) -> _Keep:
    top_low, top_high = weights.low.max(1), np.maximum(weights.high.max(1), weights.most)
    return _Keep(
        weights.low >= share * top_high[:, None],
        weights.high >= share * top_low[:, None],
        np.full(len(top_low), share <= 0),
        weights.most >= share * top_low,
    )


def _normalised(weights: Known) -> Known:
    low, high = weights.low, weights.high
    all_low = low.sum(1) + weights.rest_low
    all_high = high.sum(1) + weights.rest_high

    def share(own, others):  # own / (own + others): grows with one, falls with the other
        return np.where(own > 0, own / np.maximum(own + np.maximum(others, 0.0), 1e-300), 0.0)

    return weights._replace(
        low=share(low, all_high[:, None] - high),
        high=share(high, all_low[:, None] - low),
        rest_low=share(weights.rest_low, high.sum(1)),
        rest_high=share(weights.rest_high, low.sum(1)),
        most=share(weights.most, low.sum(1)),
    )
