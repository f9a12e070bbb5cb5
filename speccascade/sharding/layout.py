"""Where everything lies: a mesh, and a table of rules for each model."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speccascade.errors import UserError
from speccascade.sharding.rules import SHARDED, Axis, Rules, names_of


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh with the rules by which a pair lies on it; hashable, so it is a static argument.

    Rows and distributions, which the two models share, follow the expert's rules: q lies as p does,
    however the drafter that made it is laid out.

    Attributes:
      mesh: from `make_mesh`.
      expert: the expert's rules.
      drafter: the drafter's rules.
    """

    mesh: Mesh
    expert: Rules = SHARDED
    drafter: Rules = SHARDED

    def __post_init__(self):
        if self.expert.batch != self.drafter.batch:
            raise UserError(
                f"the expert's rows lie on mesh axis {self.expert.batch!r} and the drafter's on "
                f"{self.drafter.batch!r}; give both one axis"
            )

    def ways(self, axis: Axis) -> int:
        """Returns over how many devices a mesh axis spreads; 1 where the mesh lacks it."""
        return math.prod(self.mesh.shape.get(name, 1) for name in names_of(axis))

    def present(self, axis: Axis) -> Axis:
        """Returns the mesh axes among those of an axis that the mesh has."""
        found = tuple(name for name in names_of(axis) if name in self.mesh.shape)
        return found if len(found) > 1 else next(iter(found), None)

    @property
    def vocab_axis(self) -> str | None:
        """The mesh axis over which distributions are sharded; None for none."""
        axis = self.expert.vocab
        return axis if self.ways(axis) > 1 else None

    @property
    def rows(self) -> "Placement":
        """How whatever belongs to neither model lies: rows, tokens, distributions."""
        return Placement(self, self.expert)

    def of(self, role: str, model: Any = None) -> "Placement":
        """Returns how a model lies.

        Args:
          role: "expert"; every other model lies as the drafter does.
          model: the model; None for one without heads.
        """
        sizes = () if model is None else tuple(sorted(model.axis_sizes().items()))
        return Placement(self, self.expert if role == "expert" else self.drafter, sizes)

    def alone(self, role: str) -> "Layout":
        """Returns the layout for a model that decodes alone, in the expert's place."""
        return dataclasses.replace(self, expert=getattr(self, role))


@dataclasses.dataclass(frozen=True)
class Placement:
    """How the arrays of one model lie on the mesh.

    An axis whose mesh axis does not divide it is replicated. What may not be cut, such as a head
    in the middle, decides by the number of its units, not by the array's size.

    Attributes:
      layout: the whole layout.
      rules: the model's rules.
      sizes: units of logical axes whose arrays' axes hold several numbers per unit, by name.
    """

    layout: Layout
    rules: Rules
    sizes: tuple[tuple[str, int], ...] = ()

    @cached_property
    def _units(self) -> dict[str, int]:
        return dict(self.sizes)

    def for_model(self, model: Any) -> "Placement":
        """Returns how another model lies that has the same rules."""
        return dataclasses.replace(self.layout.of("", model), rules=self.rules)

    def ways(self, name: str, size: int | None = None) -> int:
        """Returns over how many devices a logical axis spreads.

        Args:
          name: the logical axis.
          size: the size of an array's axis; None to ask the units alone.
        """
        ways = self.layout.ways(getattr(self.rules, name))
        units = [n for n in (self._units.get(name), size) if n is not None]
        return 1 if any(n % ways for n in units) else ways

    def spec(self, names: PartitionSpec, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the mesh axes of an array.

        Args:
          names: the logical name of each axis, None for none; may be shorter than the array.
          shape: the array's.

        Raises:
          UserError: two axes would lie on one mesh axis.
        """
        axes = map(self.layout.present, self.rules.spec(names))
        return PartitionSpec(
            *(
                axis if axis is not None and self.ways(name, size) > 1 else None
                for name, axis, size in zip(names, axes, shape)  # noqa: B905
            )
        )

    def sharding(self, names: PartitionSpec, shape: tuple[int, ...]) -> NamedSharding:
        """Returns `spec` on the mesh."""
        return NamedSharding(self.layout.mesh, self.spec(names, shape))

    def shardings(self, names: Any, tree: Any) -> Any:
        """Returns the shardings of a pytree.

        Args:
          names: a pytree of logical names, or a prefix of one.
          tree: arrays or their shapes.
        """
        names = jax.tree.broadcast(names, tree)
        return jax.tree.map(lambda x, n: self.sharding(n, x.shape), tree, names)

    def params(self, model: Any) -> Any:
        """Returns the shardings of a model's parameters, a pytree like them."""
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        return jax.tree_util.tree_map_with_path(
            lambda path, x: self.sharding(model.param_axes(flat_key(path)), x.shape), shapes
        )

    def like_params(self, model: Any, tree: Any) -> Any:
        """Returns the shardings of a pytree that has arrays for parameters of a model.

        Those are gradients, or what an optimizer keeps: an array whose key ends in a parameter's,
        and which has its shape, lies as that does. All others are whole on every device.
        """
        known = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))
        shapes = {flat_key(path): leaf.shape for path, leaf in known}

        def where(path, x):
            parts = flat_key(path).split("/")
            ends = ("/".join(parts[i:]) for i in range(len(parts)))
            key = next((end for end in ends if shapes.get(end) == x.shape), None)
            return self.sharding(model.param_axes(key) if key else PartitionSpec(), x.shape)

        return jax.tree_util.tree_map_with_path(where, tree)

    def unequal(self, model: Any) -> list["Whole"]:
        """Returns the logical axes that lie whole for want of a divisor.

        Args:
          model: whose parameters are asked for.
        """
        paths = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))
        counts: Counter[tuple[int, str, int]] = Counter()
        for path, leaf in paths:
            names = model.param_axes(flat_key(path))
            wanted, found = self.rules.spec(names), self.spec(names, leaf.shape)
            for name, size, axis, lies in zip(names, leaf.shape, wanted, found, strict=True):
                if lies is None and (ways := self.layout.ways(axis)) > 1:
                    counts[self._units.get(name, size), name, ways] += 1
        return [Whole(*axis, count) for axis, count in counts.items()]


class Whole(NamedTuple):
    """A logical axis of a model that lies whole on every device for want of a divisor."""

    units: int
    name: str
    ways: int
    parameters: int

    def __str__(self) -> str:
        return (
            f"{self.units} {self.name} do not divide over {self.ways} devices: {self.parameters} "
            "parameters lie whole"
        )


def flat_key(path: tuple) -> str:
    """Returns a parameter's flat key, "attention_0/query/weight", from its path in the pytree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def loading(
    layout: Layout, role: str, param_axes: Callable[[str], PartitionSpec]
) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """Returns where parameters go while they are read, from flat key and shape.

    The model is not known yet: a head may be cut in two here, which `Placement.params` repairs.
    """
    placement = layout.of(role)
    return lambda key, shape: placement.sharding(param_axes(key), shape)


def lay(shapes: Any, shardings: Any) -> Any:
    """Returns a pytree of shapes as those of arrays that lie somewhere, a pytree like it."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def padding(size: int, ways: int) -> int:
    """Returns how much a size lacks to the next multiple of `ways`."""
    return math.ceil(size / ways) * ways - size
