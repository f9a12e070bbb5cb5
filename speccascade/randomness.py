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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

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


def _key(words: Array) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


class RowKeys(NamedTuple):
    """What the draws of each row are keyed by.

    Attributes:
      seed: uint32 [B, 2], from `words`.
      example_id: int32 [B].
    """

    seed: Array
    example_id: Array


def uniforms(keys: RowKeys, block_start: Array, role: Role, count: int) -> jax.Array:
    """Returns float32 uniforms in [0, 1), `[B, count]`, one per offset.

    Args:
      keys: of the rows.
      block_start: int32 [B], tokens that the row had emitted when the block began.
      role: what the uniforms decide.
      count: number of offsets; static.
    """
    return uniforms_by_role(keys, block_start, {role: count})[role]


def uniforms_by_role(
    keys: RowKeys, block_start: Array, counts: Mapping[Role, int]
) -> dict[Role, jax.Array]:
    """Returns the `uniforms` of several roles, each as if it were alone.

    A draw is `jax.random.uniform` of the seed's key with example id, block start and role folded
    in. Folding in and drawing are one hash, so that one loop of it, over the parts of the key, is
    all there is to compile.

    Args:
      keys: of the rows.
      block_start: int32 [B], see `uniforms`.
      counts: number of offsets of each role; static.
    """
    most = max(counts.values())  # a draw does not depend on how many are drawn behind it
    drawn = _drawn(keys, block_start, tuple(int(role) for role in counts), most)
    return {role: drawn[:, i, :count] for i, (role, count) in enumerate(counts.items())}


@partial(jax.jit, static_argnums=(2, 3))
def _drawn(keys: RowKeys, block_start, roles: tuple[int, ...], count: int) -> jax.Array:
    """Returns `count` draws of each role, `[B, R, count]`."""
    shape = (len(block_start), len(roles), count)
    parts = (
        jnp.reshape(keys.example_id, (-1, 1, 1)),
        jnp.reshape(block_start, (-1, 1, 1)),
        np.reshape(roles, (-1, 1)),
        np.arange(count),
    )
    words = jnp.stack([jnp.broadcast_to(part, shape).astype(jnp.uint32) for part in parts])
    seed = jnp.broadcast_to(jnp.asarray(keys.seed)[:, None, None], (*shape, 2))
    zero = jnp.zeros(shape, jnp.uint32)

    def fold(key, word):
        return tuple(threefry2x32_p.bind(*key, zero, word)), None

    (high, low), _ = jax.lax.scan(fold, (seed[..., 0], seed[..., 1]), words)
    # The 23 bits of a float in [1, 2).
    one = np.array(1.0, np.float32).view(np.uint32)
    return jax.lax.bitcast_convert_type((high ^ low) >> 9 | one, jnp.float32) - 1
