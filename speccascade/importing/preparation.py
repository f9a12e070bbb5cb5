"""Finds out whether a checkpoint can become a model, before any weight is read."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from speccascade import models, text
from speccascade.errors import UserError
from speccascade.importing import gguf_files, safetensors_files, sources
from speccascade.importing.architectures import ARCHITECTURES
from speccascade.importing.checkpoint import Checkpoint, Tensor, load_json
from speccascade.importing.weights import Fields, Plan
from speccascade.models.interface import Model, Params
from speccascade.text import Tokenizer

# In what a checkpoint's own weights are kept where nobody asks for another dtype: without loss.
_OWN_DTYPE = {"BF16": "bfloat16"}
_DTYPES = ("float32", "bfloat16")

# T5 has relative positions, which end nowhere; it was trained on texts of this length.
_T5_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Part:
    """Where one parameter comes from.

    Attributes:
      tensor: not yet read.
      name: its name, for messages.
      transform: as in `Weight`.
    """

    tensor: Tensor
    name: str
    transform: Callable[[np.ndarray], np.ndarray] | None

    @property
    def in_pieces(self) -> bool:
        """Whether rows of the parameter are rows of the tensor, as they are."""
        return self.transform is None and self.tensor.restore is None

    def whole(self) -> np.ndarray:
        """Reads the whole parameter, in the dtype in which it is made."""
        value = self.tensor.read_rows(0, self.tensor.shape[0])
        for change in (self.tensor.restore, self.transform):
            value = value if change is None else change(value)
        return value


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A checkpoint of which all is known but the weights.

    Attributes:
      model: what it becomes.
      tokenizer: its own.
      config: the fields of its config.json.
      shapes: pytree of `jax.ShapeDtypeStruct`, of the parameters to be made.
      parts: where each comes from, by flat key.
    """

    model: Model
    tokenizer: Tokenizer
    config: dict[str, Any]
    shapes: Params
    parts: dict[str, Part]

    @property
    def nbytes(self) -> int:
        """Size of the parameters in their dtypes."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes))


def flat(params: Params) -> dict[str, Any]:
    """Returns the leaves by their keys, joined by "/"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def prepare(source: sources.Source, dtype: str | None) -> Prepared:
    """Reads everything about a checkpoint but its weights, and checks it.

    Args:
      source: where it lies.
      dtype: "float32" or "bfloat16", in which the model is kept and computes; None for the
        checkpoint's own, which is float32 where it is neither.

    Raises:
      UserError: names everything that is wrong, all at once.
    """
    if dtype not in (None, *_DTYPES):
        raise UserError(f"dtype {dtype!r} is unknown; choose one of: {', '.join(_DTYPES)}")
    path = source.fetch(*sources.CONFIG)
    if path.is_file():
        config, checkpoint, tokenizer = gguf_files.read(path)
        plan, problems = _plan(config)
    else:
        config = load_json(path / "config.json")
        plan, problems = _plan(config)
        if problems and source.remote:  # the weights would be fetched in vain
            raise _refusal(source, problems)
        path = source.fetch(*sources.CONFIG, *sources.TOKENIZER, *sources.WEIGHTS)
        tokenizer = None
        try:
            tokenizer = text.load(path)
        except UserError as error:
            problems.append(str(error))
        checkpoint = safetensors_files.read(path)
    problems += checkpoint.problems
    model = None
    if plan is not None:
        dtype = dtype or _own_dtype(plan, checkpoint)
        try:
            model = models.build({**plan.description, "dtype": dtype, "param_dtype": dtype})
        except UserError as error:
            problems.append(str(error))
    parts = {}
    if model is not None and checkpoint.tensors:
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        parts, found = _match(plan, flat(shapes), checkpoint)
        problems += found
    if problems:
        raise _refusal(source, problems)
    return Prepared(model, tokenizer, config, shapes, parts)


def context_length(config: dict[str, Any]) -> int:
    """Returns the most tokens that a model was made for, by its config.json."""
    for name in ("max_position_embeddings", "n_positions"):
        if config.get(name) is not None:
            return config[name]
    if config.get("model_type") == "t5" or "relative_attention_num_buckets" in config:
        return _T5_LENGTH
    raise UserError("config.json lacks max_position_embeddings")


def _plan(config: dict[str, Any]) -> tuple[Plan | None, list[str]]:
    """Returns what the architecture says of a config, and what is wrong with it."""
    names = config.get("architectures") or [None]
    if names[0] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return None, [f"architecture {names[0]!r} of config.json is unknown; known: {known}"]
    fields = Fields(config)
    try:
        plan = ARCHITECTURES[names[0]](fields)
        context_length(config)
    except UserError as error:
        return None, [str(error)]
    unread = fields.unread()
    found = [f"config.json has fields that are not implemented: {_some(unread)}"] if unread else []
    return plan, found


def _own_dtype(plan: Plan, checkpoint: Checkpoint) -> str:
    """Returns the dtype that most weights can be kept in without loss."""
    sizes = dict.fromkeys(_DTYPES, 0)
    for weight in plan.weights.values():
        if tensor := checkpoint.tensors.get(weight.name):
            sizes[_OWN_DTYPE.get(tensor.dtype, "float32")] += tensor.size
    return max(sizes, key=sizes.get)


def _match(
    plan: Plan, shapes: dict[str, jax.ShapeDtypeStruct], checkpoint: Checkpoint
) -> tuple[dict[str, Part], list[str]]:
    """Finds each parameter's tensor.

    Returns:
      By flat key, where each parameter comes from; and what is wrong, each a phrase.
    """
    if plan.weights.keys() != shapes.keys():
        differing = sorted(plan.weights.keys() ^ shapes.keys())
        raise ValueError(f"the architecture's plan does not fit its model: {_some(differing)}")
    parts, missing, misshapen, unreadable = {}, [], [], []
    for key, weight in plan.weights.items():
        tensor = checkpoint.tensors.get(weight.name)
        if tensor is None:
            if weight.name not in checkpoint.lost:
                missing.append(weight.name)
            continue
        shape = tensor.shape
        if weight.transform is not None:
            shape = weight.transform(np.broadcast_to(np.float32(0), shape)).shape
        if shape != shapes[key].shape:
            wanted, found = list(shapes[key].shape), list(tensor.shape)
            misshapen.append(f"{weight.name} is {found} instead of {wanted}")
        if tensor.read_rows is None:
            unreadable.append(f"{weight.name} is {tensor.dtype}")
        parts[key] = Part(tensor, weight.name, weight.transform)
    wanted = {weight.name for weight in plan.weights.values()}
    ignored = [re.compile(pattern) for pattern in plan.ignored]
    left = [
        name
        for name in sorted(checkpoint.tensors)
        if name not in wanted and not any(pattern.fullmatch(name) for pattern in ignored)
    ]
    problems = []
    if missing:
        problems.append(f"missing: {_some(sorted(missing))}")
    if left:
        problems.append(f"left over, of no use to this architecture: {_some(left)}")
    if misshapen:
        problems.append(f"wrong shapes: {_some(misshapen)}")
    if unreadable:
        known = ", ".join(checkpoint.readable)
        problems.append(f"unknown dtypes (known: {known}): {_some(unreadable)}")
    return parts, problems


def _some(names: Iterable[str], most: int = 8) -> str:
    """Names, not all of them where they are many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refusal(source: sources.Source, problems: list[str]) -> UserError:
    joined = "; ".join(" ".join(problem.split()) for problem in problems)
    return UserError(f"{source.name} cannot be imported: {joined}")
