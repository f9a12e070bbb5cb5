"""Published rates of TPU chips."""

import dataclasses

import jax

from speccascade.sharding import host_memory

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one chip is published to reach.

    Attributes:
      name: the generation, as topologies name it.
      kind: what JAX calls such a device.
      flops: bfloat16 operations per second, a multiplication and an addition being two.
      int8_ops: the same for int8 operands.
      hbm_bytes: memory that a program may use: published less what the runtime keeps, as the
        compiler itself tells when a program exceeds it.
      hbm_bandwidth: bytes per second.
      link_bandwidth: bytes per second of one inter-chip link in one direction.
      ring: chips along an axis of a slice from which on (and at whose multiples) that axis is
        closed to a ring and both directions of it can be used; shorter ones are lines.
      slice: a slice of 16 chips, as a topology is written.
    """

    name: str
    kind: str
    flops: float
    int8_ops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    ring: int
    slice: str

    def share(self, size: float) -> float:
        """Returns what share of the memory `size` bytes take."""
        return size / self.hbm_bytes


# Rates per chip: the Cloud TPU documentation (https://cloud.google.com/tpu/docs/v4, v5e, v5p, v6e).
# Links and rings: Austin et al., "How to Scale Your Model"
# (https://jax-ml.github.io/scaling-book/tpus). Memory: libtpu 0.0.50, whose message for a program
# that is too large names what is available.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 275e12, 275e12, int(30.75 * GIB), 1228e9, 4.5e10, 4, "v4:2x2x4"),
        Chip("v5e", "TPU v5 lite", 197e12, 394e12, int(15.75 * GIB), 819e9, 5e10, 16, "v5e:4x4"),
        Chip("v5p", "TPU v5", 459e12, 918e12, int(95.73 * GIB), 2765e9, 1e11, 4, "v5p:2x2x4"),
        Chip("v6e", "TPU v6 lite", 918e12, 1836e12, int(31.24 * GIB), 1640e9, 1e11, 16, "v6e:4x4"),
    )
}


def of(device: jax.Device) -> Chip | None:
    """Returns what a device is, None where it is nothing of `CHIPS`."""
    return next((chip for chip in CHIPS.values() if chip.kind == device.device_kind), None)


def memory(device: jax.Device) -> int | None:
    """Returns the bytes of a device that programs may use, None where that is not known."""
    if device.platform == "cpu":
        return host_memory.total()
    told = (device.memory_stats() or {}).get("bytes_limit")
    chip = of(device)
    return told or (None if chip is None else chip.hbm_bytes)


def free(device: jax.Device) -> int | None:
    """Returns the bytes of a device that programs may still take, None where that is not known."""
    if device.platform == "cpu":
        return host_memory.free()
    room = memory(device)
    return None if room is None else room - (device.memory_stats() or {}).get("bytes_in_use", 0)


# A collective also takes this long per chip that it crosses, whatever it carries: "about 1 us" in
# the same book. No vendor publishes it, and small batches are bound by it.
HOP_SECONDS = 1e-6
