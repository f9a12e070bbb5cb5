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
from speccascade.importing.architectures import ARCHITECTURES, text_config
from speccascade.importing.checkpoint import Checkpoint, Tensor, load_json
from speccascade.importing.weights import Fields, Plan
from speccascade.models.interface import Model, Params
from speccascade.models.quantisation import check_weights, quantised
from speccascade.parameter_files import flat
from speccascade.text import Tokenizer

# In what a checkpoint's own weights are kept where nobody asks for another dtype: without loss.
_OWN_DTYPE = {"BF16": "bfloat16"}
_DTYPES = ("float32", "bfloat16")

# How much of a tensor is in memory while it is compared.
_PIECE = 32 * 2**20


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
      shapes: pytree of `jax.ShapeDtypeStruct`, of the parameters as they are read; those that the
        model keeps as int8 are rounded after that.
      parts: where each comes from, by flat key.
    """

    model: Model
    tokenizer: Tokenizer
    config: dict[str, Any]
    shapes: Params
    parts: dict[str, Part]

    @property
    def nbytes(self) -> int:
        """Size of the model's parameters in their dtypes."""
        made = jax.eval_shape(self.model.init, jax.random.key(0))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made))


def prepare(source: sources.Source, dtype: str | None, weights: str | None = None) -> Prepared:
    """Reads everything about a checkpoint but its weights, and checks it.

    Args:
      source: where it lies.
      dtype: "float32" or "bfloat16", in which the model is kept and computes; None for the
        checkpoint's own, which is float32 where it is neither.
      weights: "int8" to round the matrices; None to keep them.

    Raises:
      UserError: names everything that is wrong, all at once.
    """
    check_weights(weights)
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
    if plan is not None and _head_differs(plan, checkpoint):
        plan, found = _plan({**config, **plan.untied})
        problems += [f"the head in the checkpoint is not the embedding: {text}" for text in found]
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
    if weights is not None:
        model = quantised(model)
    return Prepared(model, tokenizer, config, shapes, parts)


def context_length(config: dict[str, Any]) -> int | None:
    """Returns the most tokens that a model was made for, by its config.json; None for no limit."""
    config = text_config(config)
    if config.get("model_type") == "t5" or "relative_attention_num_buckets" in config:
        # Its positions are relative and end nowhere. `n_positions` is a length of its training,
        # which the models that are fine-tuned from it go beyond.
        return None
    for name in ("max_position_embeddings", "n_positions"):
        if config.get(name) is not None:
            return config[name]
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


def _head_differs(plan: Plan, checkpoint: Checkpoint) -> bool:
    """Returns whether a head that is planned as the embedding is stored and is another tensor."""
    if plan.tied_head is None:
        return False
    both = (plan.weights["embedding"], plan.tied_head)
    found = [checkpoint.tensors.get(weight.find(checkpoint.tensors)) for weight in both]
    if any(tensor is None or tensor.read_rows is None for tensor in found):
        return False
    embedding, head = found
    if embedding.shape != head.shape:
        return True
    rows, step = head.shape[0], max(1, _PIECE // (4 * head.size // head.shape[0]))
    return not all(
        _equal(*(tensor.read_rows(start, min(start + step, rows)) for tensor in found))
        for start in range(0, rows, step)
    )


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    # NumPy compares bytes much faster than bfloat16.
    same_bytes = one.dtype == other.dtype and np.array_equal(
        np.ascontiguousarray(one).view(np.uint8), np.ascontiguousarray(other).view(np.uint8)
    )
    return same_bytes or np.array_equal(one, other)


def _own_dtype(plan: Plan, checkpoint: Checkpoint) -> str:
    """Returns the dtype that most weights can be kept in without loss."""
    sizes = dict.fromkeys(_DTYPES, 0)
    for weight in plan.weights.values():
        if tensor := checkpoint.tensors.get(weight.find(checkpoint.tensors)):
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
    used = set()
    if plan.tied_head is not None:
        used.add(plan.tied_head.find(checkpoint.tensors))
    for key, weight in plan.weights.items():
        name = weight.find(checkpoint.tensors)
        tensor = checkpoint.tensors.get(name)
        if tensor is None:
            if weight.find(checkpoint.lost) not in checkpoint.lost:
                missing.append(name)
            continue
        used.add(name)
        shape = tensor.shape
        if weight.transform is not None:
            shape = weight.transform(np.broadcast_to(np.float32(0), shape)).shape
        if shape != shapes[key].shape:
            wanted, found = list(shapes[key].shape), list(tensor.shape)
            misshapen.append(f"{name} is {found} instead of {wanted}")
        if tensor.read_rows is None:
            unreadable.append(f"{name} is {tensor.dtype}")
        parts[key] = Part(tensor, name, weight.transform)
    ignored = [re.compile(pattern) for pattern in plan.ignored]
    left = [
        name
        for name in sorted(checkpoint.tensors)
        if name not in used and not any(pattern.fullmatch(name) for pattern in ignored)
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
