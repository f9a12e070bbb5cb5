"""What a layer keeps of the tokens that it has read.

Two kinds behind one method: a slot for each position, and for sliding layers a ring of as many
slots as they can still see. Axis letters are those of `interface.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from speccascade.models import axes
from speccascade.sharding.active import per_shard

NEVER = 1 << 30
"""The position of a slot that holds nothing: no token comes after it."""

_TILE = 16  # rows of two-byte numbers


class Slots(NamedTuple):
    """What queries look at.

    Attributes:
      keys_BKLH: the keys.
      values_BKLH: the values.
      position_BL: int32, where each slot's token stands, `NEVER` for none; B may be 1.
    """

    keys_BKLH: jax.Array
    values_BKLH: jax.Array
    position_BL: jax.Array


def in_tiles(slots: int) -> int:
    """Returns as many slots or a few more, so that those of a long cache fill whole tiles of a TPU.

    One that does not is laid out in another way between programs than within them, and copied.
    """
    return slots if slots < 8 * _TILE else -(-slots // _TILE) * _TILE


def slots_of(key_BSKH: jax.Array, value_BSKH: jax.Array, position_BL: jax.Array) -> Slots:
    """Returns given tokens as what queries look at."""
    return Slots(key_BSKH.swapaxes(1, 2), value_BSKH.swapaxes(1, 2), position_BL)


class LayerCache(NamedTuple):
    """Keys and values of one layer, each [B, K, L, H], slot l holding position l."""

    keys_BKLH: jax.Array
    values_BKLH: jax.Array

    def extend(
        self,
        key_BSKH: jax.Array,
        value_BSKH: jax.Array,
        positions_BS: jax.Array,
        length_B: jax.Array | None = None,
    ) -> tuple["LayerCache", Slots]:
        """Takes the next tokens of every row.

        Args:
          key_BSKH: their keys.
          value_BSKH: their values.
          positions_BS: int32, consecutive within a row.
          length_B: for a chunk of right-padded prompts, which is the same for all rows: how long
            each row's prompt is. Padding is written behind it, where nothing sees it before it is
            overwritten. None where nothing is padding.

        Returns:
          The new cache and what these tokens look at.
        """
        start_B = positions_BS[:, 0]
        if length_B is None:
            written = _each(self, key_BSKH, value_BSKH, _write_rows, P("batch"), start_B)
        else:
            written = _each(self, key_BSKH, value_BSKH, _write_alike, P(), start_B[0])
        cache = LayerCache(*written)
        return cache, Slots(*cache, jnp.arange(cache.keys_BKLH.shape[2])[None])


class Ring(NamedTuple):
    """The same of a sliding layer: the slot of position p is p modulo L.

    What a row overwrites must be out of sight from wherever it goes on. Going on at position p it
    sees the `window - 1` before p, and slots hold the L positions up to the newest ever written,
    at most p + R if roll-backs are of at most R positions: L = window + R is enough.
    """

    keys_BKLH: jax.Array
    values_BKLH: jax.Array

    def extend(
        self,
        key_BSKH: jax.Array,
        value_BSKH: jax.Array,
        positions_BS: jax.Array,
        length_B: jax.Array | None = None,
    ) -> tuple["Ring", Slots]:
        """Takes the next tokens of every row; see `LayerCache.extend`.

        A block is written before it looks. A prompt's chunk may have more tokens than there are
        slots to spare: it looks at the ring as it was with itself behind, and of it is written what
        is no padding.
        """
        slots, start_B = self.keys_BKLH.shape[2], positions_BS[:, 0]
        if length_B is None:
            ring = Ring(*_each(self, key_BSKH, value_BSKH, _wrap_rows, P("batch"), start_B % slots))
            return ring, Slots(*ring, _held(positions_BS[:, -1], slots))
        new = slots_of(key_BSKH, value_BSKH, positions_BS)
        before = Slots(*self, _held(start_B - 1, slots))
        seen = Slots(
            jnp.concatenate([before.keys_BKLH, new.keys_BKLH], axis=2),
            jnp.concatenate([before.values_BKLH, new.values_BKLH], axis=2),
            jnp.concatenate([before.position_BL, new.position_BL], axis=1),
        )
        newest_B = jnp.minimum(positions_BS[:, -1], length_B - 1)
        index_BL = _newest(newest_B, slots) - start_B[:, None]
        ring = Ring(
            *_each(self, key_BSKH, value_BSKH, _choose_rows, P("batch", None), index_BL),
        )
        return ring, seen


def _newest(newest_B: jax.Array, slots: int) -> jax.Array:
    """Returns the newest position up to `newest_B` that each slot of a ring may hold, [B, L]."""
    newest = newest_B[:, None]
    return newest - (newest - jnp.arange(slots)) % slots


def _held(newest_B: jax.Array, slots: int) -> jax.Array:
    position = _newest(newest_B, slots)
    return jnp.where(position < 0, NEVER, position)


def _each(cache, key_BSKH, value_BSKH, write, names: P, where):
    """Writes keys and values, each device its own.

    By hand: a scatter whose rows XLA shards could fetch slots from other devices.
    """
    write = per_shard(write, (axes.CACHE, axes.CACHE, names), axes.CACHE)
    for slots, new in zip(cache, (key_BSKH, value_BSKH), strict=True):
        yield write(slots, new.swapaxes(1, 2).astype(slots.dtype), where)


def _write_alike(slots_BKLH, new_BKSH, start):
    return jax.lax.dynamic_update_slice(slots_BKLH, new_BKSH, (0, 0, start, 0))


def _write_rows(slots_BKLH, new_BKSH, start_B):
    """Writes S consecutive slots of every row, from each row's own start."""
    if slots_BKLH.shape[0] == 1:  # a plain slice update stays in place; a scatter is slower
        return _write_alike(slots_BKLH, new_BKSH, start_B[0])

    def write_row(slots, new, start):
        return jax.lax.dynamic_update_slice(slots, new, (0, start, 0))

    return jax.vmap(write_row)(slots_BKLH, new_BKSH, start_B)


def _wrap_rows(slots_BKLH, new_BKSH, start_B):
    """The same, going on from slot 0 behind the last one."""
    if slots_BKLH.shape[0] == 1:
        return _wrap_row(slots_BKLH[0], new_BKSH[0], start_B[0])[None]
    return jax.vmap(_wrap_row)(slots_BKLH, new_BKSH, start_B)


def _wrap_row(slots_KLH, new_KSH, start):
    # Two slices of S slots, the last ones up to the end and the first ones, of which each keeps
    # what is not written: where nothing wraps the second one is left as it was.
    size, room = new_KSH.shape[1], slots_KLH.shape[1]
    over = jnp.maximum(start + size - room, 0)
    wraps = (jnp.arange(size) < over)[:, None]
    new_KSH = jnp.roll(new_KSH, over, axis=1)
    for at, written in ((start - over, ~wraps), (0, wraps)):
        old = jax.lax.dynamic_slice_in_dim(slots_KLH, at, size, axis=1)
        new = jnp.where(written, new_KSH, old)
        slots_KLH = jax.lax.dynamic_update_slice_in_dim(slots_KLH, new, at, axis=1)
    return slots_KLH


def _choose_rows(slots_BKLH, new_BKSH, index_BL):
    """Takes into each slot the new token of that index, or below 0 leaves it."""
    index = index_BL[:, None, :, None]
    new = jnp.take_along_axis(new_BKSH, jnp.maximum(index, 0), axis=2)
    return jnp.where(index < 0, slots_BKLH, new)
