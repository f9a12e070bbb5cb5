"""vLLM's relaxed acceptance in thinking spans (`relaxed_thinking`, `relax_ratio`, `relax_top_k`).

`relaxed_thinking_sample_kernel` of vLLM's pull requests 43184 and 45229 (V1, greedy requests alone;
first 22238), which a ratio tells from TensorRT-LLM's. SGLang's 7702 asks for its thresholds by span
too. Within a thinking span a draft token x is kept where
it is among the k likeliest and `p1(x) >= ratio max p1`; outside it must be the expert's best, which
is also the token behind the kept ones. So a request has another threshold in each span, and a
strict one where it has none.

A request thinks where the last begin or end token of its text is a begin, and a draft is tested as
the text before it says. (vLLM ends a block at such a token, and does not draw another behind it;
here the drafts behind it are tested as its next block would test them.)
"""

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, best
from speccascade.kernels.trtllm import SPAN, is_likely, reads, through
from speccascade.knobs import Knob
from speccascade.vocab import positive


def _judge(block, carry, knobs, vocab):
    p1 = block.p1[:, : block.draft.shape[1]]
    own, top = at_draft(p1, block, vocab), vocab.max(p1)[..., 0]
    relaxed = is_likely(p1, own, knobs["k"], vocab) & (own >= knobs["ratio"] * top)
    strict = block.draft == vocab.first_argmax(p1)[..., 0]
    thinks = through(block, carry, knobs)
    passes = jnp.where(positive(thinks[:, :-1]), relaxed, strict)
    after = best(block.p1, vocab)
    return Judgement(passes.astype(p1.dtype), after[:, :-1], after, thinks)


def _begins(prompt, length, knobs):
    place = jnp.arange(prompt.shape[1])
    own = place < length[:, None]
    last = [
        jnp.max(jnp.where(own & (prompt == knobs[each]), place, -1), axis=1)
        for each in ("begin", "end")
    ]
    return last[0] > last[1]


VLLM_RELAXED = Kernel(
    _judge,
    "vLLM's pull request 45229",
    {
        "ratio": Knob(0, 1, default=0.5),
        "k": Knob(1, default=3, static=True),
        **SPAN,
    },
    begins=_begins,
    reads=reads,
)
