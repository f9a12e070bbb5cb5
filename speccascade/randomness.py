"""Random numbers keyed by what they are for, never by where a row stands in its batch.

A draw's key is (seed, example id, block start, role, offset). The block start, not the token's own
position, is part of it: a block verifier's acceptance looks at later drafts, so a position that is
drafted again must be drafted with fresh noise.
"""

import enum

import jax


class Role(enum.IntEnum):
    """What a uniform decides."""

    DRAFT = 0  # the drafter's token at each offset of the block
    ACCEPT = 1  # whether the draft token at each offset is kept
    TOKEN = 2  # the token after the accepted prefix


def row_keys(seed: jax.Array, example_id: jax.Array) -> jax.Array:
    """Returns one key per row, `[B]`, from int32 `seed [B]` and `example_id [B]`."""
    return jax.vmap(lambda s, e: jax.random.fold_in(jax.random.key(s), e))(seed, example_id)


def uniforms(keys: jax.Array, block_start: jax.Array, role: Role, count: int) -> jax.Array:
    """Returns float32 uniforms in [0, 1), `[B, count]`, one per offset.

    Args:
      keys: `[B]`, from `row_keys`.
      block_start: int32 [B], tokens that the row had emitted when the block began.
      role: what the uniforms decide.
      count: number of offsets; static.
    """

    def row(key, start):
        key = jax.random.fold_in(jax.random.fold_in(key, start), int(role))
        return jax.random.uniform(key, (count,))

    return jax.vmap(row)(keys, block_start)
