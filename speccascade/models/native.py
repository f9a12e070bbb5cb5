"""Products of few rows on CPU by `native.cc`, compiled for this machine's processor.

They wait for the matrix to be read. XLA reads bfloat16 at a little less than memory's speed, takes
float32 twice where there is more than one row, and widens int8 to a copy before it multiplies; this
reads each matrix once, in its own dtype. `runtime/native.py` compiles it and calls `load`.
"""

import ctypes
import pathlib

import jax
import jax.numpy as jnp

SOURCE = pathlib.Path(__file__).with_suffix(".cc")

# Where this is faster than XLA, as measured (docs/benchmark.md): of more rows the arithmetic is
# what takes time.
ROWS = {"float32": range(2, 11), "bfloat16": range(1, 7), "int8": range(1, 11)}
"""By the dtype of the weights."""

_TARGET = "speccascade_product"
_loaded: list[ctypes.CDLL] = []


def load(library: pathlib.Path) -> None:
    """Makes every product that is traced from now on use a compiled library where it `serves`.

    Args:
      library: what `SOURCE` was compiled to.

    Raises:
      OSError: it cannot be loaded.
    """
    if loaded():
        return
    found = ctypes.CDLL(str(library))
    handler = jax.ffi.pycapsule(found.SpeccascadeProduct)
    jax.ffi.register_ffi_target(_TARGET, handler, platform="cpu")
    _loaded.append(found)


def loaded() -> bool:
    """Returns whether `load` was called."""
    return bool(_loaded)


def serves(rows: int, weight: jax.Array) -> bool:
    """Returns whether `product` takes `rows` rows and a matrix: it is loaded, and they are few."""
    return loaded() and rows in ROWS.get(str(weight.dtype), ())


def product(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Multiplies few rows by a matrix. It has no gradient.

    A row's result depends neither on the other rows nor on how many there are.

    Args:
      x: `[..., in]`, at most ten rows; it is read as float32.
      weight: `[out, in]`, float32, bfloat16 or int8.

    Returns:
      float32 `[..., out]`.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    shape = jax.ShapeDtypeStruct((rows.shape[0], weight.shape[0]), jnp.float32)
    return jax.ffi.ffi_call(_TARGET, shape)(rows, weight).reshape(*x.shape[:-1], weight.shape[0])
