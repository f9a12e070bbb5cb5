"""Random parameters; by numpy where any will do: `init` compiles some dozen kernels for each."""

import functools

import jax
import numpy as np

from speccascade import models


def of(model: models.Model, seed: int = 0, scale: float = 1.0):
    """Returns parameters of a model, none of them 0 or 1.

    Args:
      model: of any family; its weights are floats.
      seed: of the numbers.
      scale: of the matrices, beyond one over the root of their columns.
    """
    rng = np.random.default_rng(seed)

    def make(leaf):
        x = rng.normal(size=leaf.shape)
        x = 1 + 0.1 * x if leaf.ndim == 1 else scale * x / np.sqrt(leaf.shape[-1])
        return x.astype(leaf.dtype)

    return jax.tree.map(make, models.shapes(model))


@functools.partial(jax.jit, static_argnums=0)
def scaled(model: models.Model, seed: int, scale: float):
    """Returns parameters as `init` makes them, times a number: distributions far from uniform."""
    return jax.tree.map(lambda x: x * scale, model.init(jax.random.key(seed)))


def near(params, share: float, seed: int = 0):
    """Returns parameters that differ by noise, of this share of each array's deviation."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (x + share * x.std() * rng.normal(size=x.shape)).astype(x.dtype), params
    )
