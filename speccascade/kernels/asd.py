"""ASD: mismatches are kept while a request's regret lasts.

"Approximate Speculative Decoding", arXiv 2608.03447, as `choose_prefix` in src/asd/budget.py of
Kissmetothemoon/ASD (asked for in transformers 48636, LightLLM 1555, SGLang 37101). The regret of a
draft token is how far its logit lies below the expert's largest, `max log p1 - log p1(x)`. A
mismatch at position i of a block of L is kept where

  * its regret is at most `per_value` times L - i, the tokens that it saves;
  * with it, the request's mismatches cost no more than `budget` in all;
  * with it, the block has at most `most` of them.

If any of the three is 0, no mismatch is kept. The token behind the kept ones is the expert's best.
"""

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, best
from speccascade.knobs import Knob
from speccascade.vocab import positive


def _judge(block, carry, knobs, vocab):
    size = block.draft.shape[1]
    p1 = block.p1[:, :size]
    own = at_draft(p1, block, vocab)
    known = positive(own)
    regret = jnp.log(vocab.max(p1)[..., 0]) - jnp.log(jnp.where(known, own, 1.0))
    regret = jnp.where(known, jnp.maximum(regret, 0.0), jnp.inf)
    misses = block.draft != vocab.first_argmax(p1)[..., 0]

    value = block.length[:, None] - jnp.arange(size)
    spent = carry[:, None] + jnp.cumsum(jnp.where(misses, regret, 0.0), axis=1)
    allowed = (regret <= knobs["per_value"] * value) & (spent <= knobs["budget"])
    allowed &= jnp.cumsum(misses, axis=1) <= knobs["most"]
    allowed &= (knobs["budget"] > 0) & (knobs["per_value"] > 0)
    after = best(block.p1, vocab)
    numbers = jnp.concatenate([carry[:, None], spent], axis=1)
    return Judgement((~misses | allowed).astype(p1.dtype), after[:, :-1], after, numbers)


ASD = Kernel(
    _judge,
    "arXiv 2608.03447, as in ASD's code",
    {
        "budget": Knob(0),
        "per_value": Knob(0, default=1.0),
        "most": Knob(0, default=1.0, whole=True),
    },
    # Otherwise the mismatches of the block count, which the number does not tell.
    has_twin=lambda knobs, size: size is not None and knobs["most"] >= size,
)
