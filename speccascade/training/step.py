"""One step of training, on one device or on a mesh: gradients of a batch, then an update.

A batch may be read in several parts, one after the other. Whatever is averaged over its tokens is
divided by what the whole batch has of them, so that the parts' gradients add up to the batch's.
"""

import dataclasses
from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from speccascade.errors import UserError
from speccascade.models.interface import Model, Params, shapes
from speccascade.models.loading import default_device
from speccascade.sharding import Layout, active, hosts
from speccascade.sharding.layout import Placement, lay

Batch = dict[str, Any]


class Work(NamedTuple):
    """What a step has to do, whatever pads its batch left out.

    Attributes:
      tokens: of all texts.
      ops: operations, a multiplication and an addition being two.
    """

    tokens: int
    ops: float


class Objective(Protocol):
    """What is minimised: hashable, since a step is compiled for it."""

    def totals(self, batch: Batch) -> Any:
        """Returns a pytree of sums over a batch, by which its means are divided."""
        ...

    def work(self, batch: Batch) -> Work:
        """Returns what a step on a batch of NumPy arrays has to do."""
        ...

    def __call__(
        self, params: Params, batch: Batch, totals: Any, fixed: Any, key: jax.Array, /
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns what a batch, or a part of one, adds to the loss, and to what is logged.

        Args:
          params: what is trained.
          batch: arrays whose axis 0 is the rows.
          totals: `totals` of the whole batch.
          fixed: other parameters, such as a teacher's.
          key: of dropout.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step is compiled for.

    Attributes:
      model: whose parameters are trained, all or some of them.
      objective: what is minimised.
      optimizer: what makes updates of gradients.
      layout: how it lies on a mesh; None for one device.
      accumulate: parts of a batch that are read one after the other.
      ema_decay: of the exponential moving average of the parameters that `start` and a step return
        in their place: what is evaluated and kept. What is trained is then part of the state. 0
        for none.
    """

    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    layout: Layout | None = None
    accumulate: int = 1
    ema_decay: float = 0.0

    def start(self, params: Params) -> tuple[Params, Any]:
        """Returns parameters where the steps have them, and the first state."""
        if self.placement is None:
            # Bound to the device, as they are after a step that reads a teacher's, or once they
            # are read from a checkpoint: other programs would take them if they were not.
            return jax.device_put((params, self._first(params)), default_device())
        params = hosts.put(params, self.placement.like_params(self.model, params))
        where = self.placement.like_params(self.model, jax.eval_shape(self._first, params))
        return params, jax.jit(self._first, out_shardings=where)(params)

    def _first(self, params: Params) -> Any:
        """Returns the state before the first step: the optimizer's or, of an average, more."""
        state = self.optimizer.init(params)
        if not self.ema_decay:
            return state
        copied = jax.tree.map(jnp.copy, params)  # a step takes the memory of both
        return {"trained": copied, "optimizer": state, "steps": jnp.zeros((), jnp.int32)}

    def __call__(
        self, params: Params, state: Any, batch: Batch, fixed: Any, key: jax.Array
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        """Takes one step.

        Args:
          params: from `start`, or from the step before; not to be used again.
          state: likewise.
          batch: NumPy arrays whose axis 0 is the rows, the same on every process but for rows that
            this one has not `needed`.
          fixed: what the objective knows beside, where the layout has it.
          key: of dropout.

        Returns:
          The next parameters and state, and what is logged.
        """
        batch = put(batch, self.layout, self.accumulate)
        trained = state["trained"] if self.ema_decay else params
        grads, logged = _gradients(trained, batch, fixed, key, how=self)
        params, state, norm = _update(params, state, grads, how=self)
        return params, state, {**logged, "grad_norm": norm}

    def shapes(self, params: Params | None = None) -> tuple[Params, Any]:
        """Returns parameters and state as shapes, where the steps have them.

        Args:
          params: the shapes of what is trained; None for all of the model's parameters.
        """
        params = shapes(self.model) if params is None else params
        state = jax.eval_shape(self._first, params)
        if self.placement is None:
            return params, state
        where = (self.placement.like_params(self.model, tree) for tree in (params, state))
        return lay(params, next(where)), lay(state, next(where))

    def lower(
        self, batch: Batch, fixed: Any = None, params: Params | None = None
    ) -> tuple[jax.stages.Lowered, jax.stages.Lowered]:
        """Returns both programs of a step, to be compiled for a layout that need not be there.

        Args:
          batch: as a step takes it.
          fixed: likewise, as shapes where the layout has them.
          params: as `shapes` takes them.
        """
        params, state = self.shapes(params)
        parts = _in_parts(batch, self.accumulate)
        key = jax.eval_shape(lambda: jax.random.key(0))
        if self.layout is not None:
            parts = lay(parts, self.layout.rows.shardings(P(None, "batch"), parts))
            key = lay(key, self.layout.rows.sharding(P(), ()))
        gradients = _gradients.lower(params, parts, fixed, key, how=self)
        return gradients, _update.lower(params, state, params, how=self)

    @property
    def placement(self) -> Placement | None:
        """How the trained model lies on the mesh; None for one device."""
        return None if self.layout is None else self.layout.of("expert", self.model)

    def keep(self, tree: Any) -> Any:
        """Lays out gradients, parameters or an optimizer's state, inside a program."""
        if self.placement is None:
            return tree
        where = self.placement.like_params(self.model, tree)
        return jax.lax.with_sharding_constraint(tree, where)


def put(batch: Batch, layout: Layout | None, parts: int | None = None) -> Batch:
    """Hands a batch's rows to the devices that compute them.

    Args:
      batch: NumPy arrays `[B, ...]`.
      layout: how rows lie; None for one device.
      parts: if given, the arrays become `[parts, B / parts, ...]`.
    """
    if parts is not None:
        batch = _in_parts(batch, parts)
    if layout is None:
        return batch
    names = P("batch") if parts is None else P(None, "batch")
    return hosts.put(batch, layout.rows.shardings(names, batch))


def needed(batch_size: int, layout: Layout | None, parts: int | None = None) -> np.ndarray:
    """Returns which rows of a batch this process hands to its devices, bool [batch_size].

    Args:
      batch_size: rows.
      layout: as `put` takes it.
      parts: likewise.
    """
    if layout is None:
        return np.ones(batch_size, bool)
    shape = (batch_size,) if parts is None else (parts, batch_size // parts)
    where = layout.rows.sharding(P("batch") if parts is None else P(None, "batch"), shape)
    found = np.zeros(shape, bool)
    for rows in where.addressable_devices_indices_map(shape).values():
        found[rows] = True
    return found.ravel()


def _in_parts(batch: Batch, parts: int) -> Batch:
    return {k: x.reshape(parts, len(x) // parts, *x.shape[1:]) for k, x in batch.items()}


# Two programs: the first is compiled for every shape of a batch, the second takes long and has one.
@partial(jax.jit, static_argnames="how")
def _gradients(params, batch, fixed, key, *, how: Step):
    """Returns the gradients and what is logged of a batch in parts, `[parts, B / parts, ...]`."""
    objective = how.objective
    with active.use(how.placement):
        totals = jax.tree.map(partial(jnp.sum, axis=0), jax.vmap(objective.totals)(batch))

        def of(part, key):
            grads, logged = jax.grad(objective, has_aux=True)(params, part, totals, fixed, key)
            return how.keep(grads), logged

        if how.accumulate == 1:
            return of(jax.tree.map(lambda x: x[0], batch), key)

        def add(sums, numbered):
            index, part = numbered
            found = of(part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, sums, found), None

        first = jax.eval_shape(of, jax.tree.map(lambda x: x[0], batch), key)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), first)
        return jax.lax.scan(add, zeros, (jnp.arange(how.accumulate), batch))[0]


@partial(jax.jit, static_argnames="how", donate_argnums=(0, 1))
def _update(params, state, grads, *, how: Step):
    if not how.ema_decay:
        params, state = _updated(params, state, grads, how)
        return how.keep(params), how.keep(state), optax.tree.norm(grads)
    trained, inner = _updated(state["trained"], state["optimizer"], grads, how)
    steps = state["steps"] + 1
    # At first a shorter one, or it would long be where the training began.
    decay = jnp.minimum(how.ema_decay, (1 + steps) / (10 + steps))

    def mean(old, new):
        return (decay * old + (1 - decay) * new).astype(old.dtype)

    params = jax.tree.map(mean, params, trained)
    state = {"trained": trained, "optimizer": inner, "steps": steps}
    return how.keep(params), how.keep(state), optax.tree.norm(grads)


def _updated(params, state, grads, how: Step):
    updates, state = how.optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def check_batch(name: str, batch_size: int, accumulate: int, layout: Layout | None) -> None:
    """Raises UserError where the rows of a batch do not divide over its parts and the devices.

    Args:
      name: of the batch size, for the message.
      batch_size: rows.
      accumulate: parts that are read one after the other.
      layout: over which rows of a part are spread; None for one device.
    """
    ways = 1 if layout is None else layout.ways(layout.expert.batch)
    if batch_size % (accumulate * ways):
        mesh = "" if layout is None else f" and the {ways} devices along mesh.data and mesh.fsdp"
        raise UserError(
            f"{name}={batch_size} must be a multiple of {accumulate * ways}, for "
            f"train.accumulate={accumulate}{mesh}"
        )


def check_layout(
    layout: Layout | None, model: Model, whole: Collection[str] = ("kv_heads",)
) -> None:
    """Raises UserError where the axes of a model's parameters do not divide over the devices.

    Args:
      layout: how the model lies; None for one device.
      model: the model.
      whole: logical axes that may lie whole: key-value heads are repeated for the devices.
    """
    if layout is None:
        return
    found = layout.of("expert", model).unequal(model)
    if lines := [str(axis) for axis in found if axis.name not in whole]:
        raise UserError(f"mesh: {'; '.join(lines)}; give mesh sizes that divide the model")
