"""From costs to times: what a chip's published rates allow, and no more than that."""

import dataclasses
from typing import NamedTuple

from speccascade.inference.formula import expected_tokens
from speccascade.models.costs import Cost
from speccascade.plan.topology import Topology
from speccascade.sharding.chips import HOP_SECONDS


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of an act, by what takes them.

    Attributes:
      compute: products at the chip's peak.
      memory: bytes at the memory's bandwidth; runs beside the products.
      exchange: bytes at the links' bandwidth; nothing to hide it behind, one layer waits for the
        other.
      hops: the latency of the links crossed.
    """

    compute: float
    memory: float
    exchange: float
    hops: float

    @property
    def total(self) -> float:
        """All of it."""
        return max(self.compute, self.memory) + self.exchange + self.hops

    @property
    def bound(self) -> str:
        """What takes the most."""
        parts = {
            "compute": self.compute,
            "memory": self.memory,
            "exchange": self.exchange + self.hops,
        }
        return max(parts, key=parts.get)


def time(cost: Cost, topology: Topology) -> Time:
    """Returns the least time of an act on a slice.

    Operands of products are bfloat16 whatever the weights are stored as.
    """
    chip = topology.chip
    exchange = hops = 0.0
    for e in cost.exchanges:
        sent = 2 * (e.ways - 1) / e.ways * e.bytes
        exchange += sent / topology.bandwidth(e.ways)
        hops += 2 * topology.diameter(e.ways) * HOP_SECONDS
    return Time(cost.ops / chip.flops, cost.hbm_bytes / chip.hbm_bandwidth, exchange, hops)


class Act(NamedTuple):
    """What an act costs and how long that takes."""

    cost: Cost
    time: Time


def act(cost: Cost, topology: Topology) -> Act:
    """Returns an act with its time on a slice."""
    return Act(cost, time(cost, topology))


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of every row, and the expert's own decoding beside it.

    Attributes:
      first_draft: the drafter's first pass of a block; of two tokens where the last one of the
        block before rides with it.
      draft: each later one.
      drafts: how many passes a block takes in all.
      expert: scoring N + 1 tokens.
      verify: distributions, target and verification.
      expert_step: the expert's pass over one token, were it decoding alone.
    """

    first_draft: Act
    draft: Act
    drafts: int
    expert: Act
    verify: Act
    expert_step: Act

    @property
    def total(self) -> float:
        """Seconds of one block."""
        drafting = self.first_draft.time.total + (self.drafts - 1) * self.draft.time.total
        return drafting + self.expert.time.total + self.verify.time.total

    def per_token(self, acceptance: float, draft_length: int) -> float:
        """Returns the seconds per token of a row.

        Args:
          acceptance: the probability that a tested draft token is kept, independent per position.
          draft_length: N.
        """
        return self.total / expected_tokens(acceptance, draft_length)
