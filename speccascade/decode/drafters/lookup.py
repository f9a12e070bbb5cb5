"""A drafter without a model: what followed last time (prompt lookup, Saxena 2023; n-gram drafting).

A row's newest tokens are looked for in its own prompt and answer; what followed them there is
drafted. It costs no pass of a model and no `[B, N, V]`: q is one-hot, or, where nothing was found,
is not, the block ends and the expert writes the token.

Public implementations look up once per block and copy on from there. A token rule's pi has q in it:
pi would then hang on where a block began. So every token is looked up anew, from its own prefix,
and at the bonus position too. q is then a function of the prefix, and the law one for every N.
"""

import dataclasses

import jax
import jax.numpy as jnp

from speccascade import rules as rules_lib
from speccascade.decode.drafters.interface import (
    Draft,
    OneHot,
    WithoutModel,
    check_asks_nothing,
    check_size,
)
from speccascade.errors import UserError


def look_up(
    text: jax.Array, length: jax.Array, max_ngram: int, min_ngram: int
) -> tuple[jax.Array, jax.Array]:
    """Looks each row's newest tokens up in the row itself.

    The longest n-gram that occurred before decides, and of several occurrences the first, as in
    vLLM and transformers: the token right behind the text is theirs.

    Args:
      text: int32 [B, L].
      length: int32 [B], each at least 1; the tokens that count.
      max_ngram: the longest n-gram looked for; static.
      min_ngram: the shortest; static.

    Returns:
      The token that followed, int32 [B], and whether there is one, bool [B].
    """
    slots = text.shape[1]
    at, newest = jnp.arange(slots), length[:, None] - 1
    # An n-gram that ends at `at` and has a successor within the text.
    matches = jnp.broadcast_to(at, text.shape) < newest
    longest = jnp.zeros(text.shape, jnp.int32)
    for back in range(min(max_ngram, slots)):
        own = jnp.take_along_axis(text, jnp.maximum(newest - back, 0), axis=1)
        there = jnp.pad(text, ((0, 0), (back, 0)))[:, :slots]
        matches &= (there == own) & (at >= back)
        longest += matches
    end = jnp.argmax(longest, axis=1)[:, None]  # the first of the longest
    found = jnp.take_along_axis(longest, end, axis=1)[:, 0] >= min_ngram
    token = jnp.take_along_axis(text, jnp.minimum(end + 1, slots - 1), axis=1)[:, 0]
    return jnp.where(found, token, 0), found


@dataclasses.dataclass(frozen=True)
class LookupDrafter(WithoutModel):
    """Drafts what followed the newest tokens where they stood before.

    Temperature and limits of the drafter do not touch it: it is certain of what it found.

    Attributes:
      max_ngram: the longest n-gram looked for.
      min_ngram: the shortest that counts as found.
    """

    max_ngram: int = 3
    min_ngram: int = 1

    def __post_init__(self):
        if not 1 <= self.min_ngram <= self.max_ngram:
            raise UserError(
                f"min_ngram={self.min_ngram} and max_ngram={self.max_ngram} must be "
                "1 <= min_ngram <= max_ngram"
            )

    def check(self, expert, size, rules, drafting):
        """Raises UserError for a rule that reads what a lookup has not; see `Drafter.check`."""
        check_size(size)
        for rule in rules:
            rules_lib.check_without_distribution(rule.name)
        check_asks_nothing(drafting)

    def draft(self, params, state, request, ends_draft, bonus):
        """Drafts a whole block, or nothing where nothing is found; see `Drafter.draft`."""
        rows = jnp.arange(request.text.shape[0])

        def following(carry, _):
            text, length = carry
            token, found = look_up(text, length, self.max_ngram, self.min_ngram)
            return (text.at[rows, length].set(token), length + 1), (token, found)

        _, (tokens, found) = jax.lax.scan(
            following, (request.text, request.length), length=request.size + bonus
        )
        tokens, found = tokens.T, found.T
        # What was found goes on being found: the copy and its origin match ever longer.
        length = jnp.where(found[:, 0], request.size, 0).astype(jnp.int32)
        valid = jnp.ones(length.shape, bool)
        return Draft(tokens[:, : request.size], OneHot(tokens, found), length, {}, valid), state
