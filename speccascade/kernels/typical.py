"""Typical acceptance as two engines run it: a draft token is kept where the expert finds it likely.

Cai et al. 2024, "Medusa", section 2.3. The test is `evaluate_posterior` in medusa/model/utils.py
of FasterDecoding/Medusa and `TypicalAcceptanceSampler` in vllm/model_executor/layers/
typical_acceptance_sampler.py of vLLM (from pull request 8562 on, until its V0 workers went), the
same to the 1e-5 in the entropy:

    p(x) > min(epsilon, delta exp(-H)),    H = -sum_v p(v) log(p(v) + 1e-5)

with p at the request's temperature, so that at 0 the token must be the expert's. The longest prefix
that passes is kept, and the expert's best token takes the place of the first that does not. They
differ in the token behind a whole block: Medusa takes the expert's best there too, vLLM a sample
of p.
(A tree's other branches are left out: a block is one path.)
"""

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, best
from speccascade.knobs import Knob

_KNOBS = {"epsilon": Knob(0, 1, open_high=True, default=0.09), "delta": Knob(0, default=0.3)}


def _passes(block, knobs, vocab):
    p = block.p[:, : block.draft.shape[1]]
    entropy = -vocab.sum(p * jnp.log(p + 1e-5))[..., 0]
    edge = jnp.minimum(knobs["epsilon"], knobs["delta"] * jnp.exp(-entropy))
    return (at_draft(p, block, vocab) > edge).astype(p.dtype)


def _medusa(block, carry, knobs, vocab):
    after = best(block.p, vocab)
    return Judgement(_passes(block, knobs, vocab), after[:, :-1], after)


def _vllm(block, carry, knobs, vocab):
    return Judgement(_passes(block, knobs, vocab), best(block.p[:, :-1], vocab), block.p)


MEDUSA = Kernel(_medusa, "Cai et al. 2024, as in Medusa's code", _KNOBS)
VLLM = Kernel(_vllm, "Cai et al. 2024, as in vLLM's code", _KNOBS)
