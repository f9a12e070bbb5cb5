"""What lies in a device's memory, by arithmetic over shapes and shardings."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from speccascade.errors import UserError
from speccascade.models.interface import Cache, Model
from speccascade.models.kv_cache import LayerCache, Ring
from speccascade.sharding import chips


def leaves(tree: Any) -> Iterator[tuple[str, jax.ShapeDtypeStruct]]:
    """Yields flat key, "attention_0/query/weight", and leaf of a pytree of shapes."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def local(leaf: jax.ShapeDtypeStruct | jax.Array) -> tuple[int, ...]:
    """Returns the shape that one device holds of a leaf, all of it where it has no sharding."""
    return leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)


def size(tree: Any) -> int:
    """Returns the bytes that one device holds of a pytree of shapes."""
    return sum(math.prod(local(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def of_pass(model: Model, batch: int, tokens: int, slots: int) -> int:
    """Returns the bytes of what a pass of a whole model reads and makes: its cache and logits.

    Args:
      model: the model.
      batch: B, rows.
      tokens: S of each row.
      slots: L of the cache.
    """
    row = size(jax.eval_shape(partial(model.init_cache, 1, slots, tokens)))
    return batch * (row + 4 * tokens * model.vocab_size)


def check(what: str, needed: int, change: str) -> None:
    """Raises UserError where this process's first device has less memory free than is needed.

    What is refused would be killed without a word, or fill the swap.

    Args:
      what: is done, at the sentence's beginning.
      needed: bytes, at least.
      change: what would help.
    """
    device = jax.local_devices()[0]
    free = chips.free(device)
    if free is not None and needed > free:
        raise UserError(
            f"{what} needs more than {needed / chips.GIB:.3g} GiB for caches and logits, and "
            f"{device.device_kind} has {free / chips.GIB:.3g} GiB free; {change}"
        )


def scores(model: Model, cache: Cache, prompt_length: int) -> int:
    """Returns the bytes that one device's float32 attention scores take while prompts are read.

    Args:
      model: the model.
      cache: its cache's shapes after the prefill.
      prompt_length: T.
    """
    chunk = min(model.chunk, prompt_length)
    most = 0
    for layer in jax.tree.leaves(cache, is_leaf=lambda x: isinstance(x, LayerCache | Ring)):
        if not isinstance(layer, LayerCache | Ring):
            continue
        batch, heads, slots, _ = local(layer.keys_BKLH)
        queries = model.config.num_heads // layer.keys_BKLH.shape[1] * heads * chunk
        seen = slots + chunk if isinstance(layer, Ring) else slots
        most = max(most, 4 * batch * queries * seen)
    return most


def is_product(key: str, leaf: jax.ShapeDtypeStruct) -> bool:
    """Returns whether a parameter is the matrix of a product, or many, or an embedding table."""
    return leaf.ndim > 1 and not key.endswith(("relative/embedding", "/scale"))
