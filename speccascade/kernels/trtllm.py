"""TensorRT-LLM's relaxed acceptance in thinking spans (`relaxed_topk`, `relaxed_delta`).

`mtpRelaxedAcceptanceKernel` in cpp/tensorrt_llm/kernels/speculativeDecoding/mtpKernels.cu of
NVIDIA/TensorRT-LLM, and `sample_and_accept_draft_tokens` in tensorrt_llm/_torch/speculative/mtp.py
that calls it with probabilities at temperature 1. A draft token x is kept where it is among the k
likeliest and `p1(x) >= max p1 - delta`; delta is 0 outside a thinking span, where only the expert's
best token (or one tied with it) is kept. The token behind the kept ones is the expert's best.

A request thinks from the start where its prompt holds the begin token, *whether or not the end
token follows it there*; later, begin and end tokens turn it on and off, from the next block on.
"""

import jax.numpy as jnp

from speccascade.kernels.interface import Judgement, Kernel, at_draft, best
from speccascade.knobs import Knob

# The tokens that a thinking span begins and ends with.
SPAN = {name: Knob(0, static=True, is_token=True) for name in ("begin", "end")}


def _judge(block, carry, knobs, vocab):
    p1 = block.p1[:, : block.draft.shape[1]]
    own = at_draft(p1, block, vocab)
    delta = knobs["delta"] * carry[:, None]
    passes = is_likely(p1, own, knobs["k"], vocab) & (own >= vocab.max(p1)[..., 0] - delta)
    after = best(block.p1, vocab)
    thinks = through(block, carry, knobs)
    return Judgement(passes.astype(p1.dtype), after[:, :-1], after, thinks)


def is_likely(p1, own, k, vocab):
    """Returns whether entries of p1, `own` [B, N], are among the k largest."""
    return vocab.sum((p1 > own[..., None]).astype(jnp.int32))[..., 0] < k


def through(block, carry, knobs):
    """Returns whether a row thinks after each of its drafts, [B, N + 1]."""
    thinks = [carry]
    for token in block.draft.T:
        thinks.append(reads(thinks[-1], token, knobs))
    return jnp.stack(thinks, axis=1)


def reads(carry, token, knobs):
    """Returns whether a row thinks after a token."""
    carry = jnp.where(token == knobs["begin"], 1.0, carry)
    return jnp.where(token == knobs["end"], 0.0, carry)


def _begins(prompt, length, knobs):
    own = jnp.arange(prompt.shape[1]) < length[:, None]
    return jnp.any(own & (prompt == knobs["begin"]), axis=1)


TRTLLM = Kernel(
    _judge,
    "TensorRT-LLM's mtpKernels.cu",
    {
        "delta": Knob(0, 1, default=0.6),
        "k": Knob(1, default=10, static=True),
        **SPAN,
    },
    begins=_begins,
    reads=reads,
)
