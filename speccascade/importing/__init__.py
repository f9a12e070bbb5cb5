"""Checkpoints of other libraries, read into this package's models.

weights.py            what an architecture tells the importer
architectures/        the architectures
sources.py            where a checkpoint lies
checkpoint.py         what a file format is to the importer
safetensors_files.py  Hugging Face directories
jax_folders.py        what T5X and Orbax wrote
t5x_layout.py         names and shapes of T5X's T5
gemma_layout.py       and of Gemma in Orbax folders
layout.py             what a layout tells
stored_arrays.py      arrays in zarr, OCDBT and msgpack
gguf_files.py         GGUF files
gguf_metadata.py      what they say about the model
preparation.py        everything that can be checked before a weight is read
arrays.py             weights into device arrays
writing.py            a checkpoint as a workdir
"""

from typing import Any, NamedTuple

from etils import epath

from speccascade import models
from speccascade.importing.arrays import read_params
from speccascade.importing.preparation import context_length, prepare
from speccascade.importing.sources import locate, stamps
from speccascade.importing.writing import Imported, import_checkpoint
from speccascade.inputs import paths
from speccascade.inputs.fields import Fields
from speccascade.models.interface import Model, Params
from speccascade.models.loading import Shardings
from speccascade.models.quantisation import check_weights, quantise
from speccascade.text import Tokenizer
from speccascade.workdir import checkpoints, sharing
from speccascade.workdir.storage import storage

__all__ = ["Imported", "Loaded", "changed", "import_checkpoint", "load", "load_model"]


class Loaded(NamedTuple):
    """A model in memory.

    Attributes:
      model: its description.
      params: its parameters.
      tokenizer: its own.
      context_length: the most tokens that it was made for, see `pairs.Pair`; None for no limit.
      origin: what its parameters were made of, JSON-ready: a checkpoint's checksums or, where it
        has none, its files' sizes and times; and in which way. None where that is not known.
    """

    model: Model
    params: Params
    tokenizer: Tokenizer
    context_length: int | None
    origin: Any = None


def load(
    source: str,
    dtype: str | None = None,
    shardings: Shardings | None = None,
    weights: str | None = None,
    expert: Params | None = None,
    read: bool = True,
) -> Loaded:
    """Loads a model from wherever it lies.

    Args:
      source: the workdir of a trained or imported model, a Hugging Face directory, a folder of
        T5X or Orbax, a .gguf file, package:NAME/FILE, a hub id or a URL.
      dtype: "float32" or "bfloat16"; None for the source's own (see `prepare`).
      shardings: from a parameter's flat key ("attention_0/query/weight") and shape to how it is
        laid out; None for whole on the default device.
      weights: "int8" to round the matrices; None to keep them as they are.
      expert: the parameters of the expert that it drafts for, with which a drafter may share some.
      read: whether the weights of a checkpoint are read, which takes most of the time; else the
        parameters are their shapes. Those of a workdir are read all the same.

    Raises:
      UserError: names everything that is wrong with it.
    """
    source = paths.plain(source)
    if _is_workdir(source):
        return _load_workdir(source, dtype, shardings, weights, expert)
    with locate(source) as found:
        prepared = prepare(found, dtype, weights)
        params = read_params(prepared, shardings) if read else models.shapes(prepared.model)
        length = context_length(Fields(prepared.config, found.name))
        origin = None if found.remote else [stamps(found.fetch()), dtype, weights]
        return Loaded(prepared.model, params, prepared.tokenizer, length, origin)


def _load_workdir(source, dtype, shardings, weights, expert) -> Loaded:
    model, params, tokenizer, known = checkpoints.load(source, shardings, expert)
    model, params = changed(model, params, dtype, weights)
    if noted := sharing.read(source):
        length = noted["context_length"]
    else:
        config = Fields.read(epath.Path(source) / "config.json")
        train = config.object("train", {})
        length = train.integer("row_length", None, at_least=1) or context_length(config)
    origin = None if known is None else [known, dtype, weights]
    return Loaded(model, params, tokenizer, length, origin)


def changed(
    model: Model, params: Params, dtype: str | None, weights: str | None
) -> tuple[Model, Params]:
    """Returns a model that computes in `dtype` with rounded `weights`; see `load`."""
    check_weights(weights)
    if dtype is not None:
        model = models.build({**models.describe(model), "dtype": dtype})
    return (model, params) if weights is None else quantise(model, params)


def _is_workdir(source: str) -> bool:
    with storage(source):
        return not source.startswith("package:") and (epath.Path(source) / "model.json").exists()


def load_model(
    source: str, dtype: str | None = None, shardings: Shardings | None = None
) -> tuple[Model, Params, Tokenizer]:
    """Returns the first three of `load`."""
    return load(source, dtype, shardings)[:3]
