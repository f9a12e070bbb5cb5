"""The verifier in the plainest words, one row at a time, and mistakes planted in it.

A `Verifier` decides each drafted position by one uniform below a chance; what is kept, and what
follows, is a function of these decisions. A mistake is a class that gets one of its parts wrong.
"""

import itertools
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """A drafted block.

    Attributes:
      draft: int [L], the tokens.
      q: float64 [L + 1, V], the drafter's distributions.
      pi: float64 [L + 1, V], the target's.
      p: float64 [L + 1, V], the expert's.
    """

    draft: np.ndarray
    q: np.ndarray
    pi: np.ndarray
    p: np.ndarray


class Verifier:
    """Token verification."""

    method = "token"

    def block(self, draft, drafted, q, pi, p) -> Block:
        """Returns what was drafted of a row."""
        return Block(draft[:drafted], *(table[: drafted + 1] for table in (q, pi, p)))

    def ratio(self, q: float, pi: float, p: float) -> float:
        """Returns how probably a token is kept."""
        return min(1.0, pi / q)

    def weights(self, block: Block) -> list[float]:
        """Returns w_0..w_L, the share of the target that is still due."""
        return [1.0] * (len(block.draft) + 1)

    def chances(self, block: Block) -> list[float]:
        """Returns below what each position's uniform must be."""
        return [
            self.ratio(block.q[i, x], block.pi[i, x], block.p[i, x])
            for i, x in enumerate(block.draft)
        ]

    def below(self, uniform: float, chance: float) -> bool:
        """Returns a position's decision."""
        return uniform < chance

    def kept(self, decisions: list[bool]) -> int:
        """Returns how many tokens are kept: those before the first rejection."""
        return next((i for i, kept in enumerate(decisions) if not kept), len(decisions))

    def residual(self, block: Block, i: int) -> np.ndarray:
        """Returns what the token after i kept ones is drawn from, where the block is not over."""
        return np.maximum(self.weights(block)[i] * block.pi[i] - block.q[i], 0)

    def bonus(self, block: Block) -> np.ndarray:
        """Returns what the token after the whole block is drawn from."""
        return block.pi[-1]

    def distribution(self, weights: np.ndarray) -> np.ndarray:
        """Returns weights as a distribution."""
        return weights / weights.sum()

    def after(self, block: Block, i: int) -> np.ndarray:
        """Returns the distribution of the token after i kept ones."""
        if i == len(block.draft):
            return self.distribution(self.bonus(block))
        residual = self.residual(block, i)
        return self.distribution(residual if residual.sum() > 0 else block.pi[i])

    def outcome(self, block: Block, accept: np.ndarray, token: float) -> tuple[int, int]:
        """Returns how many tokens are kept and which follows, by inverse CDF."""
        found = zip(accept, self.chances(block), strict=False)
        kept = self.kept([bool(self.below(uniform, chance)) for uniform, chance in found])
        cumulative = np.cumsum(self.after(block, kept))
        return kept, min(int(np.searchsorted(cumulative, token, "right")), len(cumulative) - 1)

    def law(self, block: Block) -> np.ndarray:
        """Returns the joint law of what is kept and the token after it, [L + 1, V]."""
        chances = self.chances(block)
        found = np.zeros_like(block.pi)
        for decisions in itertools.product([False, True], repeat=len(chances)):
            each = [c if kept else 1 - c for c, kept in zip(chances, decisions, strict=True)]
            if np.prod(each) > 0:
                kept = self.kept(list(decisions))
                found[kept] += np.prod(each) * self.after(block, kept)
        return found


class BlockVerifier(Verifier):
    """Block verification (Sun et al. 2025)."""

    method = "block"

    def step(self, weight: float, ratio: float) -> float:
        """Returns w_i from w_{i-1} and the ratio at the token between them."""
        return min(1.0, weight * ratio)

    def weights(self, block):
        """Returns w_0..w_L."""
        found = [1.0]
        for i, x in enumerate(block.draft):
            found.append(self.step(found[-1], block.pi[i, x] / block.q[i, x]))
        return found

    def surplus(self, block: Block, i: int, weight: float) -> float:
        """Returns s_i, the mass of the residual."""
        return np.maximum(weight * block.pi[i] - block.q[i], 0).sum()

    def chances(self, block):
        """Returns h_1..h_L."""
        weights, found = self.weights(block), []
        for i in range(1, len(block.draft)):
            surplus = self.surplus(block, i, weights[i])
            total = surplus + 1 - weights[i]
            found.append(surplus / total if total > 0 else 0.0)
        return [*found, weights[-1]][: len(block.draft)]

    def kept(self, decisions):
        """Returns how many tokens are kept: up to the last position that is."""
        return max((i for i, kept in enumerate(decisions, 1) if kept), default=0)


RIGHT = {"token": Verifier(), "block": BlockVerifier()}


# ---- mistakes ----


class _RatioUpsideDown(Verifier):
    def ratio(self, q, pi, p):
        return min(1.0, q / pi) if pi > 0 else 1.0


class _ExpertsRatio(Verifier):
    def ratio(self, q, pi, p):
        return min(1.0, p / q)


class _ResidualFromTarget(Verifier):
    def residual(self, block, i):
        return block.pi[i]


class _NotRenormalised(Verifier):
    def distribution(self, weights):
        rest = np.zeros_like(weights)
        rest[-1] = 1 - weights.sum()  # where the cumulative sum ends below the uniform
        return weights + np.maximum(rest, 0)


class _BonusFromDrafter(Verifier):
    def bonus(self, block):
        return block.q[-1]


class _BonusOfPositionBefore(Verifier):
    def bonus(self, block):
        return block.pi[max(len(block.draft) - 1, 0)]


class _DraftsTakenForCertain(Verifier):
    def ratio(self, q, pi, p):
        return pi

    def residual(self, block, i):
        return np.where(np.arange(block.pi.shape[1]) == block.draft[i], 0, block.pi[i])


class _CountsAfterRejection(Verifier):
    def kept(self, decisions):
        return sum(decisions)


class _KeepsWhatWasNotDrafted(Verifier):
    def block(self, draft, drafted, q, pi, p):
        return Block(draft, q, pi, p)

    def ratio(self, q, pi, p):
        return min(1.0, pi / q) if q > 0 else 1.0

    def distribution(self, weights):
        return weights / (weights.sum() or 1.0)  # behind the block a rule has no target


class _KeepsAtZero(Verifier):
    def below(self, uniform, chance):
        return uniform <= chance


class _LikeliestToken(Verifier):
    def distribution(self, weights):
        return np.eye(len(weights))[np.argmax(weights)]


class _BlockTokenByToken(BlockVerifier):
    weights = Verifier.weights
    chances = Verifier.chances
    kept = Verifier.kept


class _WeightsAboveOne(BlockVerifier):
    def step(self, weight, ratio):
        return weight * ratio

    def chances(self, block):
        return [min(max(chance, 0.0), 1.0) for chance in super().chances(block)]


class _ResidualWithoutWeight(BlockVerifier):
    def residual(self, block, i):
        return np.maximum(block.pi[i] - block.q[i], 0)


class _ScoresWithoutWeight(BlockVerifier):
    def surplus(self, block, i, weight):
        return np.maximum(block.pi[i] - block.q[i], 0).sum()


class _BlockEndsAtFirst(BlockVerifier):
    kept = Verifier.kept


MISTAKES: dict[str, Verifier] = {
    "ratio upside down": _RatioUpsideDown(),
    "the expert's ratio in place of the rule's": _ExpertsRatio(),
    "residual from the target": _ResidualFromTarget(),
    "residual not renormalised": _NotRenormalised(),
    "bonus token from the drafter": _BonusFromDrafter(),
    "bonus token of the position before": _BonusOfPositionBefore(),
    "drafts taken for certain": _DraftsTakenForCertain(),
    "tokens after a rejection counted": _CountsAfterRejection(),
    "what was not drafted is kept": _KeepsWhatWasNotDrafted(),
    "kept at a uniform of zero": _KeepsAtZero(),
    "likeliest token in place of a draw": _LikeliestToken(),
    "block decided token by token": _BlockTokenByToken(),
    "block weights above one": _WeightsAboveOne(),
    "block residual without its weight": _ResidualWithoutWeight(),
    "block scores without their weight": _ScoresWithoutWeight(),
    "block ends at its first rejection": _BlockEndsAtFirst(),
}
