"""The direct twin of a kernel: the law of its sequences at one expert pass a token.

Where a test asks for nothing of its block but the token's place, a block need not be drafted before
it is judged: the drafter writes a token, one pass tests it, and what is decided is emitted alone.
How many were kept in a row says where the block would end; behind it the next token is a bonus.
No speed is left, and no pass is saved: a mode that differs from its twin is not what it seems.

Without such ends no token is a bonus, and what is left is the law of a target: q as tested, and
what takes the place of the rest.
"""

import dataclasses

import jax
import jax.numpy as jnp

from speccascade.kernels.interface import Block, Kernel
from speccascade.kernels.verify import Knobs, read, tested
from speccascade.verify import Uniforms, Verdict
from speccascade.vocab import WHOLE, Vocab


@dataclasses.dataclass(frozen=True)
class Twin:
    """What a `Decoder`'s verifier is whose rows follow kernels a token at a time.

    Attributes:
      size: N, draft tokens of the blocks of the mode; None where blocks never end.
    """

    size: int | None

    def verify(
        self,
        kernel: Kernel,
        knobs: Knobs,
        block: Block,
        carry: jax.Array,
        uniforms: Uniforms,
        vocab: Vocab = WHOLE,
    ) -> tuple[Verdict, jax.Array]:
        """Decides on the first token of a drafted block, and takes it or draws another.

        Args:
          kernel: the kernel.
          knobs: each `[]` or `[B, 1]`.
          block: the drafted block.
          carry: float32 [B, 2], the rows' numbers before it, and how many tokens were kept in a
            row.
          uniforms: the randomness.
          vocab: how to reduce over V.

        Returns:
          The verdict, which is a next token alone, and the carry after it.
        """
        number, run = carry[:, 0], carry[:, 1]
        left = jnp.ones_like(run) if self.size is None else self.size - run
        length = jnp.where(block.length > 0, left, 0).astype(jnp.int32)
        first = Block(block.draft[:, :1], length, block.q[:, :1], block.p[:, :2], block.p1[:, :2])
        own = uniforms._replace(accept=uniforms.accept[:, :1])
        verdict, number = tested(kernel, knobs, first, number, own, vocab)
        kept = verdict.num_accepted > 0
        token = jnp.where(kept, block.draft[:, 0], verdict.next_token)
        number = jnp.where(kept, number, read(kernel, number, token, knobs))
        run = jnp.where(kept, run + 1, 0.0)
        nothing = jnp.zeros_like(verdict.num_accepted)
        return Verdict(nothing, token), jnp.stack([number, run], axis=1)
