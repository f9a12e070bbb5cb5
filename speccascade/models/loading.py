"""Where parameters go while they are read from a disk."""

from collections.abc import Callable

import jax

Shardings = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]
"""From a parameter's flat key ("attention_0/query/weight") and shape to how it is laid out."""


def default_device() -> jax.Device:
    """Returns where JAX puts what nobody lays out."""
    return jax.config.jax_default_device or jax.local_devices()[0]


def default_sharding(key: str, shape: tuple[int, ...]) -> jax.sharding.Sharding:
    """Puts every parameter whole on the default device."""
    del key, shape
    return jax.sharding.SingleDeviceSharding(default_device())
