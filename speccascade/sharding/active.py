"""What a traced function asks of the layout that it is traced for; without one, all of it is a
no-op.

    with use(placement):
        x = constrain(x, "batch", None, "mlp")
"""

import contextlib
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from speccascade.sharding.layout import Placement, padding
from speccascade.sharding.rules import names_of
from speccascade.vocab import WHOLE, Vocab

_ACTIVE: contextvars.ContextVar[Placement | None] = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def use(placement: Placement | None):
    """Traces what is inside for a placement; None for one device."""
    token = _ACTIVE.set(placement)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


@contextlib.contextmanager
def use_for(model: Any):
    """Traces what is inside for another model, which lies as the one around it does."""
    placement = _ACTIVE.get()
    with use(placement and placement.for_model(model)):
        yield


def ways(name: str) -> int:
    """Returns over how many devices a logical axis spreads."""
    placement = _ACTIVE.get()
    return 1 if placement is None else placement.ways(name)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Lays an array out by the logical names of its axes."""
    placement = _ACTIVE.get()
    if placement is None:
        return x
    return jax.lax.with_sharding_constraint(x, placement.sharding(PartitionSpec(*names), x.shape))


def per_shard(
    f: Callable, in_axes: Any, out_axes: PartitionSpec, summed: str | None = None
) -> Callable:
    """Returns `f` run by each device on its own shards, which it must not need others' for.

    Args:
      f: a function of arrays to one array.
      in_axes: the logical names of each argument's axes, in pytrees like the arguments; those of
        the first decide `out_axes`, so that all are sharded where it is.
      out_axes: those of the result, which has the shape of the first argument.
      summed: a logical axis over whose shards results are summed, and the gradients of what is not
        cut over it: nothing in `f` is exchanged, which may thus compute under conditions of its
        own. None for none.
    """
    placement = _ACTIVE.get()
    if placement is None:
        return f

    def run(*args):
        in_specs = jax.tree.map(
            lambda names, x: placement.spec(names, x.shape), in_axes, args, is_leaf=_is_names
        )
        out_specs = placement.spec(out_axes, args[0].shape)
        if summed is None:
            return _shard_map(f, placement, in_specs, out_specs)(*args)
        axes = set().union(*map(_mesh_axes, _names(in_specs)))
        over = {
            axis
            for names, spec in zip(_names(in_axes), _names(in_specs), strict=True)
            for name, axis in zip(names, spec, strict=True)
            if name == summed and axis is not None
        }

        def own(spec, x):  # what devices share, as an array of each device's own
            shared = tuple(axes - _mesh_axes(spec))
            return jax.lax.pcast(x, shared, to="varying") if shared else x

        def summing(*args):
            y = f(*jax.tree.map(own, in_specs, args, is_leaf=_is_names))
            return jax.lax.psum(y, tuple(over)) if over else y

        return _shard_map(summing, placement, in_specs, out_specs)(*args)

    return run


def look_up(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns `table[ids]`, `[..., D]`, of a table whose rows are sharded over the vocabulary.

    Args:
      table: `[V, D]`.
      ids: int32 `[B, S]`.
    """
    placement = _ACTIVE.get()
    if placement is None:
        return table[ids]
    axes = placement.spec(PartitionSpec("vocab", "embed"), table.shape)
    rows = placement.spec(PartitionSpec("batch", None), ids.shape)
    if set(names_of(axes[1])) & set(names_of(rows[0])):  # its devices have other rows each
        axes = PartitionSpec(axes[0], None)
    vocab = Vocab(axes[0])

    def own(table, ids):
        # One device has the row, the others add zeros: exact.
        return vocab.rows(table, ids)

    return _shard_map(own, placement, (axes, rows), PartitionSpec(*rows, axes[1]))(table, ids)


def over_vocabulary(f: Callable, in_axes: Any, out_axes: Any) -> Callable:
    """Returns `f(vocab, *args)` as a function of `args` that runs on shards of the vocabulary.

    It always runs under `jax.shard_map` where there is a layout: nothing in it can gather an axis
    unless it says so.

    Args:
      f: a pure function, which reduces over the vocabulary by `vocab` alone.
      in_axes: a pytree of logical names, "batch" and "vocab", that is a prefix of `args`; scalars
        have none. A vocabulary has been through `pad_vocabulary`.
      out_axes: the same for what `f` returns.
    """
    active = _ACTIVE.get()
    if active is None:
        return partial(f, WHOLE)
    layout = active.layout
    placement = layout.rows

    def run(*args):
        leaves, tree = jax.tree.flatten(args)
        names = jax.tree.leaves(jax.tree.broadcast(in_axes, args), is_leaf=_is_names)
        in_specs = [placement.spec(n, x.shape) for n, x in zip(names, leaves, strict=True)]
        batch = next(s[0] for s, n, x in zip(in_specs, names, leaves, strict=True) if x.ndim and n)
        own = {"batch": batch, "vocab": layout.vocab_axis, None: None}
        out_specs = jax.tree.map(
            lambda n: PartitionSpec(*(own[name] for name in n)), out_axes, is_leaf=_is_names
        )
        in_specs = jax.tree.unflatten(tree, in_specs)
        body = partial(f, Vocab(layout.vocab_axis))
        return _shard_map(body, placement, in_specs, out_specs)(*args)

    return run


def pad_vocabulary(logits: jax.Array) -> jax.Array:
    """Pads logits `[..., V]` with ids that cannot be sampled, up to equal shards."""
    placement = _ACTIVE.get()
    if placement is None:
        return logits
    short = padding(logits.shape[-1], placement.layout.ways(placement.layout.vocab_axis))
    if not short:
        return logits
    widths = [(0, 0)] * (logits.ndim - 1) + [(0, short)]
    return jnp.pad(logits, widths, constant_values=-jnp.inf)


def _is_names(x) -> bool:
    return isinstance(x, PartitionSpec)


def _mesh_axes(spec: PartitionSpec) -> set[str]:
    return {name for axis in spec for name in names_of(axis)}


def _names(tree: Any) -> list[PartitionSpec]:
    return jax.tree.leaves(tree, is_leaf=_is_names)


def _shard_map(f, placement: Placement, in_specs, out_specs):
    mesh = placement.layout.mesh
    return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
