"""Cactus: the target is moved towards the token that was drafted, within a bound on its divergence.

Hao and Mou 2026, arXiv 2604.04987, as `solve_constraint` in cactus/cactus.py of MANGA-UOFA/Cactus.
For a drafted x the verifier takes for its target

    h(x) = min(1, p(x) + sqrt(2 delta p(x) (1 - p(x)))),    h(v) = p(v) (1 - h(x)) / (1 - p(x))

and verifies as usual: x is kept with min(1, h(x) / q(x)), else the next token is drawn from
max(0, h - q). The bound, to second order, is KL(h || p) <= delta *for each x*; as x is what q
drew, the law of the token is of no single h.
"""

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, is_draft
from speccascade.knobs import Knob
from speccascade.vocab import positive


def _judge(block, carry, knobs, vocab):
    p, q = at_draft(block.p, block, vocab), at_draft(block.q, block, vocab)
    h = jnp.minimum(p + jnp.sqrt(2 * knobs["delta"] * p * (1 - p)), 1.0)
    known = positive(q)
    ratio = jnp.minimum(h / jnp.where(known, q, 1.0), 1.0)
    chance = jnp.where(known, ratio, (h > 0).astype(h.dtype))
    rest = positive(1 - p)
    scale = jnp.where(rest, (1 - h) / jnp.where(rest, 1 - p, 1.0), 1.0)
    moved = block.p[:, :-1] * scale[..., None]
    moved = jnp.where(is_draft(block, vocab), h[..., None], moved)
    return Judgement(chance, jnp.maximum(moved - block.q, 0.0), block.p)


CACTUS = Kernel(
    _judge, "Hao and Mou 2026, as in Cactus's code", {"delta": Knob(0)}, expert_at={"delta": 0}
)
