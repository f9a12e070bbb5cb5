"""The mesh: devices in a grid whose axes have names."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from speccascade.errors import UserError
from speccascade.inputs import values

AXES = ("data", "fsdp", "model")
"""Every axis that a mesh may have, slowest first: neighbours along `model` are the nearest."""


def make_mesh(
    sizes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Lays devices out as a mesh.

    Args:
      sizes: devices along each axis, `{"data": 2, "model": 4}`; one of them may be -1, for all that
        the others leave. None for all devices along `model`.
      devices: which; None for all there are.

    Raises:
      UserError: an axis is unknown, or the sizes do not use up the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = dict({"model": -1} if sizes is None else sizes)
    if unknown := sorted(set(sizes) - set(AXES)):
        raise UserError(f"mesh has no axis {', '.join(unknown)}; its axes: {', '.join(AXES)}")
    for axis, size in sizes.items():
        sizes[axis] = size = values.whole(f"mesh.{axis}", size)
        if size < 1 and size != -1:
            raise UserError(f"mesh.{axis}={size!r} must be a whole number, at least 1, or -1")
    shown = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    known = math.prod(size for size in sizes.values() if size != -1)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise UserError(f"mesh {shown} leaves several axes open; only one size may be -1")
    if open_axes and len(devices) % known == 0:
        sizes[open_axes[0]] = len(devices) // known
    if math.prod(sizes.values()) != len(devices):
        raise UserError(
            f"mesh {shown} does not use up the {len(devices)} devices there are; make the product "
            "of its sizes that number"
        )
    shape = {axis: sizes.get(axis, 1) for axis in AXES if axis in sizes or axis != "fsdp"}
    # Slices are grids of their own: eight along `model` are two rows of a 4x4.
    grid = mesh_utils.create_device_mesh(
        tuple(shape.values()), devices, allow_split_physical_axes=True
    )
    return Mesh(grid, tuple(shape), axis_types=(AxisType.Auto,) * len(shape))
