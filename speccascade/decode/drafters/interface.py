"""What the decode engine knows of a drafter: anything that yields tokens, the exact distributions
they were sampled from, and how many tokens each row drafted.

A new drafter is one file beside this one; docs/extend.md says how.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade import rules as rules_lib
from speccascade.errors import UserError
from speccascade.models.interface import Model, Params
from speccascade.rules import Rule
from speccascade.sampling import Truncation
from speccascade.sharding import Layout, Placement
from speccascade.vocab import WHOLE, Vocab

# They stand in tuples of arrays in the place of these, hence no type of their own.
ROWS: Any = P("batch")
AT_ROWS: Any = P("batch", "vocab")
AT_POSITIONS: Any = P("batch", None, "vocab")
"""Logical axes of what has an entry per row [B], of distributions [B, V] and [B, M, V]."""


class Request(NamedTuple):
    """What a drafter is asked.

    A head that reads the expert's features of the positions scored last (EAGLE, MTP) would get them
    here, `[B, N + 1, D]` beside the number of them that were kept: `step` has them when it has
    scored a block, and the state would carry them to the next.

    Attributes:
      text: int32 [B, L], prompt and answer so far, one behind the other, and room for a block. Of
        an encoder-decoder the prompt is what its encoder read.
      length: int32 [B], tokens of `text` that are committed; what stands behind them is nothing.
      previous: int32 [B], the token before `last`.
      last: int32 [B], the newest token that the models read.
      position: int32 [B], the position of `last`.
      uniforms: float32 [B, K], K as the drafter's `uniforms` says; N for a single model, one per
        draft token.
      temperature: float32 [B].
      truncation: limits on what may be drafted, or None.
      size: N; static.
      drafting: what the drafter itself asks for row by row, see `Rows`; None for most.
    """

    text: jax.Array
    length: jax.Array
    previous: jax.Array
    last: jax.Array
    position: jax.Array
    uniforms: jax.Array
    temperature: jax.Array
    truncation: Truncation | None
    size: int
    drafting: Any = None


class EndsDraft(NamedTuple):
    """Asks each row's rule whether drafting ends.

    Attributes:
      rules: the run's rules.
      rule_index: int32 [B].
    """

    rules: tuple[Rule, ...]
    rule_index: jax.Array

    def __call__(self, q1: jax.Array, vocab: Vocab = WHOLE) -> jax.Array:
        """Maps q1 `[B, V]` to bool [B], true where drafting ends before that position."""
        ends = [rules_lib.ends_draft(rule, q1, vocab) for rule in self.rules]
        return by_row(ends, self.rule_index)


def by_row(choices: list[jax.Array], index: jax.Array) -> jax.Array:
    """Returns `choices[index[b]][b]` for every row b."""
    chosen = choices[0]
    for i, choice in enumerate(choices[1:], start=1):
        chosen = jnp.where((index == i).reshape(-1, *(1,) * (choice.ndim - 1)), choice, chosen)
    return chosen


class Dense(NamedTuple):
    """What a block was sampled from, as arrays over the vocabulary.

    Attributes:
      q: float32 [B, M, V], the distribution of each token as sampled; M is N + 1 where the bonus
        position was asked for, else N. Under a layout V is padded to equal shards.
      q1: float32 [B, M, V], the same at temperature 1, untruncated.
    """

    q: jax.Array
    q1: jax.Array

    @property
    def has_gaps(self) -> bool:
        """Whether there may be positions without a q."""
        return False

    def axes(self) -> "Dense":
        """Returns the logical axes of the fields."""
        return Dense(AT_POSITIONS, AT_POSITIONS)

    def spread(self, p: jax.Array, vocab: Vocab = WHOLE) -> "Dense":
        """Returns q and q1 in the shape of p [B, N + 1, V]; they are zero where not known."""
        return Dense(padded(self.q, p), padded(self.q1, p))

    def known(self, positions: int) -> jax.Array:
        """Returns bool [B, positions], where there is a q."""
        batch, width = self.q.shape[:2]
        return jnp.broadcast_to(jnp.arange(positions) < width, (batch, positions))


class OneHot(NamedTuple):
    """What a block without a distribution was drafted by: one token, for sure, or none.

    Where none was found there is no q and the block ends, and pi is p: the expert writes the token.
    Rules and verifier see q as a comparison of ids, which is fused into what reads it.

    Attributes:
      tokens: int32 [B, M], M as in `Dense`.
      found: bool [B, M], whether there is a token at that position, given those before.
    """

    tokens: jax.Array
    found: jax.Array

    @property
    def has_gaps(self) -> bool:
        """Whether there may be positions without a q."""
        return True

    def axes(self) -> "OneHot":
        """Returns the logical axes of the fields."""
        return OneHot(ROWS, ROWS)

    def spread(self, p: jax.Array, vocab: Vocab = WHOLE) -> Dense:
        """Returns q in the shape of p [B, N + 1, V]; see `Dense.spread`. There is no other q1."""
        short = p.shape[1] - self.tokens.shape[1]
        tokens = jnp.pad(self.tokens, ((0, 0), (0, short)))[..., None]
        at = self.known(p.shape[1])[..., None] & (vocab.ids(p) == tokens)
        q = at.astype(p.dtype)
        return Dense(q, q)

    def known(self, positions: int) -> jax.Array:
        """Returns bool [B, positions], where there is a q."""
        return jnp.pad(self.found, ((0, 0), (0, positions - self.found.shape[1])))


def padded(q: jax.Array, p: jax.Array) -> jax.Array:
    """Returns q in p's shape: without the bonus position no rule reads q there."""
    missing = p.shape[1] - q.shape[1]
    return jnp.pad(q, ((0, 0), (0, missing), (0, p.shape[2] - q.shape[2])))


class Draft(NamedTuple):
    """A drafted block.

    Attributes:
      tokens: int32 [B, N].
      q: what they were sampled from, at the bonus position too where it was asked for.
      length: int32 [B] in 0..N, tokens really drafted.
      calls: int32 [B] each, passes taken, by the roles of the drafter's models.
      valid: bool [B], false where the drafter's logits were not finite.
    """

    tokens: jax.Array
    q: Dense | OneHot
    length: jax.Array
    calls: dict[str, jax.Array]
    valid: jax.Array

    def axes(self) -> "Draft":
        """Returns the logical axes of the fields."""
        return Draft(ROWS, self.q.axes(), ROWS, ROWS, ROWS)


class Drafter(Protocol):
    """The interface that the decode engine knows. Implementations are frozen and hashable.

    Attributes:
      roles: names of its models, by which their passes are counted.
    """

    @property
    def roles(self) -> tuple[str, ...]: ...

    def check(self, expert: Model, size: int, rules: tuple[Rule, ...], drafting: Any) -> None:
        """Raises UserError where the drafter cannot draft.

        Args:
          expert: the model that it drafts for.
          size: N.
          rules: the run's rules.
          drafting: of the rows.
        """
        ...

    def uniforms(self, size: int) -> int:
        """Returns how many uniforms a row's block of `size` tokens may take."""
        ...

    def prefill(
        self, params: Params, prompt: jax.Array, length: jax.Array, slots: int, overhang: int
    ) -> Any:
        """Returns the drafter's state after right-padded prompts.

        Args:
          params: the drafter's parameters.
          prompt: int32 [B, T].
          length: int32 [B], each prompt's own.
          slots: positions of a row.
          overhang: the most tokens of a block that a row may write and go back behind.
        """
        ...

    def draft(
        self,
        params: Params,
        state: Any,
        request: Request,
        ends_draft: EndsDraft | None,
        bonus: bool,
    ) -> tuple[Draft, Any]:
        """Drafts a block.

        Args:
          params: the drafter's parameters.
          state: from `prefill` or the last call.
          request: what to draft.
          ends_draft: tells where drafting ends; None where it never does.
          bonus: whether q is wanted at the position after the block too.

        Returns:
          The block and the new state. Accepted or not, the next request tells where to go on.
        """
        ...

    def placement(self, layout: Layout) -> Placement:
        """Returns how the drafter lies on a mesh; raises UserError where it cannot."""
        ...

    def param_shardings(self, placement: Placement) -> Any:
        """Returns the shardings of its parameters."""
        ...

    def state_shardings(self, placement: Placement, state: Any) -> Any:
        """Returns the shardings of its state, or of the state's shapes."""
        ...


class WithoutModel:
    """What drafters without a model share: no parameters, no state, no passes, no noise."""

    roles = ()

    def uniforms(self, size):
        """Takes none."""
        return 0

    def prefill(self, params, prompt, length, slots, overhang):
        """Has no state."""
        return ()

    def placement(self, layout):
        """Returns the drafter's part of the mesh; see `Drafter.placement`."""
        return layout.of("drafter")

    def param_shardings(self, placement):
        """Has no parameters."""
        return ()

    def state_shardings(self, placement, state):
        """Has no state."""
        return ()


# ---- what drafters check ----


def check_size(size: int) -> None:
    """Raises UserError where a block has no room for a draft."""
    if size < 1:
        raise UserError(f"draft_length={size} must be at least 1")


def check_vocabulary(drafter: Model, expert: Model, name: str = "drafter") -> None:
    """Raises UserError where two models, the first called `name`, share no vocabulary."""
    if drafter.vocab_size != expert.vocab_size:
        raise UserError(
            f"the {name} has {drafter.vocab_size} token ids and the expert "
            f"{expert.vocab_size}; a pair must share one vocabulary"
        )


def check_asks_nothing(drafting: Any) -> None:
    """Raises UserError where rows ask for a drafting that only another drafter knows."""
    if drafting is not None:
        raise UserError("rows say how to draft (drafting) and this drafter asks nothing of them")
