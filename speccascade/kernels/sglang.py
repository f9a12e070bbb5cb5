"""SGLang's acceptance thresholds, `speculative_accept_threshold_single` and `_acc`.

`TreeSpeculativeSamplingTargetOnly` in sgl-kernel/csrc/speculative/speculative_sampling.cuh of
sgl-project/sglang, on a chain. A draft token x is kept where

    coin <= p(x) / threshold_acc    or    p(x) >= threshold_single

(threshold_acc no less than 1e-9); else the next token is drawn from p without x, and behind a whole
block from p. The drafter's q is read nowhere. At its defaults, 1 and 1, that is lossless for any
drafter: x is kept with p(x), and p without x has 1 - p(x) to give.
"""

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, without_draft
from speccascade.knobs import Knob


def _judge(block, carry, knobs, vocab):
    p = at_draft(block.p, block, vocab)
    raised = jnp.minimum(p / jnp.maximum(knobs["threshold_acc"], 1e-9), 1.0)
    chance = jnp.where(p >= knobs["threshold_single"], 1.0, raised)
    return Judgement(chance, without_draft(block, vocab), block.p)


SGLANG = Kernel(
    _judge,
    "SGLang's speculative_sampling.cuh",
    {"threshold_single": Knob(0, 1, default=1.0), "threshold_acc": Knob(0, 1, default=1.0)},
    expert_at={"threshold_single": 1, "threshold_acc": 1},
)
