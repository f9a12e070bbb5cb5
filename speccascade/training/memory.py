"""What a training takes of a device's memory, by arithmetic: the least, activations left out."""

import dataclasses

import jax
import jax.numpy as jnp

from speccascade.errors import UserError
from speccascade.models.interface import Params, shapes
from speccascade.models.memory import size
from speccascade.sharding import chips
from speccascade.sharding.layout import lay
from speccascade.training.step import Step


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes that lie on one device while gradients are made.

    Attributes:
      weights: of the model that is trained, and of adapters where those are.
      optimizer: its state, and with `train.ema_decay` the weights beside their average.
      gradients: float32.
      teacher: the teacher's weights.
    """

    weights: int
    optimizer: int
    gradients: int
    teacher: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(dataclasses.astuple(self))


def needs(step: Step, params: Params | None = None) -> Needs:
    """Returns what the steps of a training need.

    Args:
      step: what they are compiled for.
      params: the shapes of what is trained; None for those that `trained` returns.
    """
    params, state = step.shapes(trained(step) if params is None else params)
    grads = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), params
    )
    needed = Needs(*map(size, (params, state, grads, teacher(step))))
    return dataclasses.replace(needed, weights=needed.weights + size(frozen(step)))


def trained(step: Step) -> Params:
    """Returns the shapes of what the steps train: adapters, or all of the model's parameters."""
    adapters = getattr(step.objective, "adapters", None)
    whole = shapes(step.model)
    return whole if adapters is None else jax.eval_shape(lambda: adapters.first(whole, 0))


def frozen(step: Step) -> Params:
    """Returns the shapes of weights that adapters are beside, where the steps have them."""
    if getattr(step.objective, "adapters", None) is None:
        return None
    if step.layout is None:
        return shapes(step.model)
    return lay(shapes(step.model), step.layout.of("expert", step.model).params(step.model))


def teacher(step: Step) -> Params:
    """Returns the teacher's parameters as shapes, where the steps have them; None for none."""
    model = getattr(step.objective, "teacher", None)
    if model is None or step.layout is None:
        return model and shapes(model)
    return lay(shapes(model), step.layout.of("expert", model).params(model))


def check(found: Needs, device: jax.Device | None = None) -> None:
    """Raises UserError where a device has less memory than a training needs at least.

    Args:
      found: what it needs.
      device: one of those that it is for; None for this process's first.
    """
    device = device or jax.local_devices()[0]
    room = chips.memory(device)
    if room is None or found.total <= room:
        return
    parts = ", ".join(
        f"{name} {size / chips.GIB:.2f}" for name, size in dataclasses.asdict(found).items() if size
    )
    raise UserError(
        f"the training needs more than {found.total / chips.GIB:.2f} GiB on each device ({parts}), "
        f"and {device.device_kind} has {room / chips.GIB:.2f}; cut the weights over more devices "
        "along mesh.fsdp or mesh.model, or take train.optimizer=adafactor"
    )
