"""A model's parameters as one safetensors file.

Keys are those of the parameters, joined by "/", in bfloat16. A matrix KEY in int8 is two arrays,
KEY/values and KEY/scale. The file's metadata are checksums of the arrays.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import safetensors
from safetensors.flax import load_file, save

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.int8 import Int8
from speccascade.models.interface import Model, Params
from speccascade.models.quantisation import to_int8
from speccascade.workdir import checksums


def write(path: str, params: Params, rounded: bool = False) -> None:
    """Writes parameters.

    Args:
      path: of the file.
      params: the parameters; whole numbers stay what they are.
      rounded: whether matrices are rounded to int8, half the size.
    """

    def stored(leaf):
        if isinstance(leaf, Int8) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        if not rounded:
            return jnp.asarray(leaf, jnp.bfloat16)
        return to_int8(leaf) if leaf.ndim > 1 else leaf

    params = jax.tree.map(stored, params, is_leaf=lambda x: isinstance(x, Int8))
    with open(path, "wb") as file:
        arrays = flat(params)
        # its save_file would deny others to read it
        file.write(save(arrays, metadata=checksums.of(arrays)))


def read(path: str, model: Model, given: Mapping[str, Any] | None = None) -> Params:
    """Reads a model's parameters, in the dtype of computation.

    Args:
      path: of the file.
      model: whose they are; int8 matrices of one that has none are turned back.
      given: parameters that come from elsewhere.

    Raises:
      UserError: the file is missing, damaged, or holds other arrays.
    """
    given = flat(dict(given or {}))
    try:
        found = load_file(path)
        with safetensors.safe_open(path, "flax") as file:
            known = file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; export the pair again") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged or truncated ({error}); export it again") from None
    checksums.check(found, known, path, "export the pair again")
    wanted = models.shapes(model)
    shapes = {key: leaf.shape for key, leaf in flat(wanted).items()}
    for key in shapes.keys() - found.keys():
        if f"{key}/values" in found and f"{key}/scale" in found:
            found[key] = Int8(found.pop(f"{key}/values"), found.pop(f"{key}/scale")).astype(
                jnp.float32
            )
    found |= given
    if shapes != {key: leaf.shape for key, leaf in found.items()}:
        raise UserError(f"{path} holds other arrays than pair.json says; export the pair again")
    leaves = [found[key] for key in shapes]
    return cast(model, jax.tree.unflatten(jax.tree.structure(wanted), leaves))


def origin(path: str) -> Any:
    """Returns what tells a file's parameters apart, JSON-ready; see `importing.Loaded`.

    Those are its checksums or, of a file that was written without, its size and time of change.
    """
    with safetensors.safe_open(path, "flax") as file:
        known = file.metadata()
    stat = os.stat(path)
    return known or [os.path.realpath(path), stat.st_size, stat.st_mtime_ns]


def cast(model: Model, params: Params) -> Params:
    """Returns parameters in the dtype of computation: a decode step then converts nothing.

    What a model keeps in a dtype of its own whatever that is, scales of norms or int8, stays.
    """
    description = models.describe(model)
    made = models.build({**description, "param_dtype": description["dtype"]})
    wanted = models.shapes(made)
    return jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), params, wanted)


def flat(params: Params) -> dict[str, Any]:
    """Returns the leaves by their keys, joined by "/"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
