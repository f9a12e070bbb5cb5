"""The devices of a TPU slice, described without having it, for the compiler."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from speccascade.errors import UserError
from speccascade.sharding.chips import CHIPS, Chip

# Without these the TPU library asks a metadata server who it is, says at length that nobody
# answers, and refuses to be loaded by two processes at once.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# Slices that Cloud TPU offers and the compiler was seen to take; larger ones exist.
KNOWN = {
    "v4": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8",
    "v5e": "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16",
    "v5p": "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8",
    "v6e": "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice.

    Attributes:
      name: as Cloud TPU writes it, "v5e:4x4".
      chip: what it is made of.
      grid: chips along each axis.
      devices: one per chip, for compiling only.
    """

    name: str
    chip: Chip
    grid: tuple[int, ...]
    devices: Sequence[jax.Device] = dataclasses.field(repr=False)

    def diameter(self, ways: int) -> int:
        """Returns how many links lie between the farthest two of `ways` neighbouring chips."""
        links = 0
        for size in sorted(self.grid, reverse=True):
            along = math.gcd(ways, size)
            ways //= along
            links += along // 2 if self._is_ring(along, size) else along - 1
        return links

    def bandwidth(self, ways: int) -> float:
        """Returns the bytes per second with which each of `ways` chips passes data on."""
        size = max(self.grid)
        both = 2 if self._is_ring(math.gcd(ways, size), size) else 1
        return both * self.chip.link_bandwidth

    def _is_ring(self, along: int, size: int) -> bool:
        return along == size and size % self.chip.ring == 0


def names(wanted: str) -> list[str]:
    """Returns the topologies that a flag names: one, several with commas, or "all".

    Raises:
      UserError: one of them is not known.
    """
    if wanted == "all":
        return [chip.slice for chip in CHIPS.values()]
    found = [name.strip() for name in wanted.split(",")]
    for name in found:
        _parse(name)
    return found


def _parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    generation, _, grid = name.partition(":")
    if generation not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", grid):
        known = "; ".join(f"{chip}: {grids}" for chip, grids in KNOWN.items())
        raise UserError(
            f"topology {name!r} is unknown; give GENERATION:GRID, as v5e:4x4, or all. Known are "
            f"{known}"
        )
    return CHIPS[generation], tuple(map(int, grid.split("x")))


def describe(name: str) -> Topology:
    """Describes a slice.

    Must run before JAX has looked for devices: it sets environment variables, and keeps this
    process off a TPU that the machine may have.

    Raises:
      UserError: the name is unknown, or libtpu is not installed.
    """
    chip, grid = _parse(name)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "libtpu, the compiler for TPUs, is not installed; "
            "pip install -r requirements-tpu.txt (640 MB, no TPU needed)"
        )
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    # A v4 chip has two cores; programs see them as one device, as they do on every later chip.
    options = {"chip_config_name": "megacore"} if chip.name == "v4" else {}
    try:
        found = topologies.get_topology_desc(topology_name=name, platform="tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the compiler does not take topology {name}: {reason}; known for {chip.name} are "
            f"{KNOWN[chip.name]}"
        ) from None
    if len(found.devices) != math.prod(grid):
        raise UserError(
            f"topology {name} has {len(found.devices)} devices and not one per chip; known for "
            f"{chip.name} are {KNOWN[chip.name]}"
        )
    return Topology(name, chip, grid, found.devices)


def larger(name: str) -> str | None:
    """Returns the known topology of the same generation with the next more chips, None for none."""
    chip, grid = _parse(name)
    sizes = {math.prod(map(int, g.split("x"))): g for g in KNOWN[chip.name].split()}
    above = [size for size in sizes if size > math.prod(grid)]
    return f"{chip.name}:{sizes[min(above)]}" if above else None
