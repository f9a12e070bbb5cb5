"""Random numbers keyed by what they are for, never by where a row stands in its batch.

A draw's key is (seed, example id, block start, role, offset). The block start, not the token's own
position, is part of it: a block verifier's acceptance looks at later drafts, so a position that is
drafted again must be drafted with fresh noise.

A seed is any whole number. `folded` makes 64 bits of it, and nothing else turns a seed into random
numbers.
"""

import enum
import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.inputs import values

Array = jax.Array | np.ndarray


class Role(enum.IntEnum):
    """What a uniform decides."""

    DRAFT = 0  # the drafter's token at each offset of the block
    ACCEPT = 1  # whether the draft token at each offset is kept
    TOKEN = 2  # the token after the accepted prefix


def folded(seed: Any, name: str = "seed") -> int:
    """Returns the 64 bits that stand for a seed: itself below 2**31, else a hash with bit 63 set.

    Raises:
      UserError: it is no whole number; the message calls it `name`.
    """
    value = values.whole(name, seed)
    if 0 <= value < 1 << 31:
        return value
    digest = hashlib.sha256(str(value).encode()).digest()
    return int.from_bytes(digest[:8], "big") | 1 << 63


def words(seed: Any) -> np.ndarray:
    """Returns `folded` as two words, uint32 [2], the high one first: the data of its key."""
    value = folded(seed)
    return np.array([value >> 32, value & 0xFFFFFFFF], np.uint32)


def key(seed: Any) -> jax.Array:
    """Returns a seed's key: that of `jax.random.key` for 0 to 2**31 - 1."""
    return _key(words(seed))


def row_keys(seed: Array, example_id: Array) -> jax.Array:
    """Returns one key per row, `[B]`, from `words`, `[B, 2]`, and int32 `example_id [B]`."""
    return jax.vmap(lambda s, e: jax.random.fold_in(_key(s), e))(seed, example_id)


def _key(words: Array) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def uniforms(keys: jax.Array, block_start: jax.Array, role: Role, count: int) -> jax.Array:
    """Returns float32 uniforms in [0, 1), `[B, count]`, one per offset.

    Args:
      keys: `[B]`, from `row_keys`.
      block_start: int32 [B], tokens that the row had emitted when the block began.
      role: what the uniforms decide.
      count: number of offsets; static.
    """
    return uniforms_by_role(keys, block_start, {role: count})[role]


def uniforms_by_role(
    keys: jax.Array, block_start: Array, counts: Mapping[Role, int]
) -> dict[Role, jax.Array]:
    """Returns the `uniforms` of several roles, each as if it were alone.

    They are drawn at once: each fold and each draw of its own is a loop of kernels to compile.

    Args:
      keys: `[B]`, from `row_keys`.
      block_start: int32 [B], see `uniforms`.
      counts: number of offsets of each role; static.
    """
    roles = np.array([int(role) for role in counts], np.int32)
    most = max(counts.values())  # a draw does not depend on how many are drawn behind it

    def row(key, start):
        key = jax.random.fold_in(key, start)
        folded = jax.vmap(partial(jax.random.fold_in, key))(roles)
        return jax.vmap(lambda key: jax.random.uniform(key, (most,)))(folded)

    drawn = jax.vmap(row)(keys, block_start)
    return {role: drawn[:, i, :count] for i, (role, count) in enumerate(counts.items())}
