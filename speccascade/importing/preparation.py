"""Finds out whether a checkpoint can become a model, before any weight is read."""

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from speccascade import models, text
from speccascade.errors import UserError
from speccascade.importing import gguf_files, jax_folders, safetensors_files, sources
from speccascade.importing.architectures import planner, text_config
from speccascade.importing.checkpoint import Checkpoint, Tensor, stacked
from speccascade.importing.weights import Plan
from speccascade.inputs.fields import Fields
from speccascade.models.interface import Model, Params
from speccascade.models.quantisation import check_weights, quantised
from speccascade.text import Tokenizer
from speccascade.workdir.parameter_files import flat

# In what weights are kept where nobody asks for another dtype: without loss. Those of 8 bits or
# fewer are off by more than bfloat16 rounds them by, which takes half the bytes of float32: half
# the time of a decode step that waits for memory.
_OWN_DTYPE = {"F32": "float32", "F16": "float32", "BF16": "bfloat16"}
_OF_QUANTISED = "bfloat16"
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
        return self.tensor.in_pieces and self.transform is None and self.tensor.restore is None

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
      source: its name, as the user gave it.
      model: what it becomes.
      tokenizer: its own.
      config: the fields of its config.json.
      shapes: pytree of `jax.ShapeDtypeStruct`, of the parameters as they are read; those that the
        model keeps as int8 are rounded after that.
      parts: where each comes from, by flat key.
    """

    source: str
    model: Model
    tokenizer: Tokenizer
    config: dict[str, Any]
    shapes: Params
    parts: dict[str, Part]

    @property
    def nbytes(self) -> int:
        """Size of the model's parameters in their dtypes."""
        made = models.shapes(self.model)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made))

    @property
    def dtype(self) -> str:
        """In what most parameters are kept: int8, bfloat16 or float32."""
        described = models.describe(self.model)
        return described.get("weight_dtype") or described["param_dtype"]

    def __str__(self) -> str:
        sizes: collections.Counter[str] = collections.Counter()
        for part in self.parts.values():
            sizes[part.tensor.dtype] += part.tensor.size
        stored = ", ".join(kind for kind, _ in sizes.most_common(4))
        stored += ", ..." if len(sizes) > 4 else ""
        return (
            f"{self.source}: {sizes.total() / 1e6:,.1f}M parameters, stored as {stored}, become "
            f"{self.nbytes / 1e6:,.1f} MB in {self.dtype}"
        )


def prepare(source: sources.Source, dtype: str | None, weights: str | None = None) -> Prepared:
    """Reads everything about a checkpoint but its weights, and checks it.

    Args:
      source: where it lies.
      dtype: "float32" or "bfloat16", in which the model is kept and computes; None for the
        checkpoint's own, which is float32 for float16 and bfloat16 for quantised weights.
      weights: "int8" to round the matrices; None to keep them.

    Raises:
      UserError: names everything that is wrong, all at once.
    """
    check_weights(weights)
    if dtype not in (None, *_DTYPES):
        raise UserError(f"dtype {dtype!r} is unknown; choose one of: {', '.join(_DTYPES)}")
    path = source.fetch(*sources.CONFIG)
    if path.is_file():
        fields, checkpoint, tokenizer = gguf_files.read(path)
        config = Fields(fields, path.name)
        plan, problems = _plan(config)
    elif folder := jax_folders.find(path):
        fields, checkpoint = jax_folders.read(folder)
        config = Fields(fields, str(folder))
        plan, problems = _plan(config)
        tokenizer = None
        try:
            tokenizer = jax_folders.tokenizer(folder, fields)
        except UserError as error:
            problems.append(str(error))
    else:
        config = _config(path)
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
        plan, found = _plan(config.changed(plan.untied))
        problems += [f"the head in the checkpoint is not the embedding: {text}" for text in found]
    model = None
    if plan is not None:
        dtype = dtype or _own_dtype(plan, checkpoint)
        try:
            model = models.build({**plan.description, "dtype": dtype, "param_dtype": dtype})
        except UserError as error:
            problems.append(str(error))
    parts: dict[str, Any] = {}
    if model is not None and checkpoint.tensors:
        shapes = models.shapes(model)
        parts, found = _match(plan, flat(shapes), checkpoint)
        problems += found
    if problems:
        raise _refusal(source, problems)
    if weights is not None:
        model = quantised(model)
    return Prepared(source.name, model, tokenizer, config.values, shapes, parts)


def context_length(config: Fields) -> int | None:
    """Returns the most tokens that a model was made for, by its config.json; None for no limit."""
    config = text_config(config)
    if config.values.get("model_type") == "t5" or config.has("relative_attention_num_buckets"):
        # Its positions are relative and end nowhere. `n_positions` is a length of its training,
        # which the models that are fine-tuned from it go beyond.
        return None
    for name in ("max_position_embeddings", "n_positions"):
        if config.has(name):
            return config.integer(name, at_least=1)
    return config.integer("max_position_embeddings")


def _config(path: pathlib.Path) -> Fields:
    """Reads a checkpoint's config.json, and of generation_config.json what belongs there too."""
    config = Fields.read(path / "config.json", "config.json")
    other = path / "generation_config.json"
    start = "decoder_start_token_id"
    if config.has(start) or not other.exists():
        return config
    found = Fields.read(other, other.name).integer(start, None)
    return config if found is None else config.changed({start: found})


def _plan(config: Fields) -> tuple[Plan | None, list[str]]:
    """Returns what the architecture says of a config, and what is wrong with it."""
    fields = config.changed({})
    try:
        plan = planner(fields)(fields)
        context_length(config)
    except UserError as error:
        return None, [str(error)]
    unread = fields.unread()
    if not unread:
        return plan, []
    return plan, [f"{config.source} has fields that are not implemented: {_some(unread)}"]


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
    """Returns the dtype that suits most weights."""
    sizes = dict.fromkeys(_DTYPES, 0)
    for weight in plan.weights.values():
        for name in weight.names(checkpoint.tensors):
            if tensor := checkpoint.tensors.get(name):
                sizes[_OWN_DTYPE.get(tensor.dtype, _OF_QUANTISED)] += tensor.size
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

    def called(name: str) -> str:
        return checkpoint.called.get(name, name)

    if plan.tied_head is not None:
        used.add(plan.tied_head.find(checkpoint.tensors))
    for key, weight in plan.weights.items():
        names = weight.names(checkpoint.tensors)
        wanted = shapes[key].shape if weight.stacked is None else shapes[key].shape[1:]
        tensors = [checkpoint.tensors.get(name) for name in names]
        for name, lost, tensor in zip(names, weight.names(checkpoint.lost), tensors, strict=True):
            if tensor is None:
                if lost not in checkpoint.lost:
                    missing.append(called(name))
                continue
            used.add(name)
            shape = tensor.shape
            if weight.transform is not None:
                shape = weight.transform(np.broadcast_to(np.float32(0), shape)).shape
            if shape != wanted:
                found = list(tensor.shape)
                misshapen.append(f"{called(name)} is {found} instead of {list(wanted)}")
            if tensor.read_rows is None:
                unreadable.append(f"{called(name)} is {tensor.dtype}")
        if None not in tensors:
            whole, name = tensors[0], called(names[0])
            if weight.stacked is not None:
                whole, name = stacked(tensors), f"{name} and the {len(names) - 1} after it"
            parts[key] = Part(whole, name, weight.transform)
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
