"""Trained models that a training begins from or learns from, and what they decide."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from speccascade import models, pairs, randomness, tasks, text
from speccascade.errors import UserError
from speccascade.models.axes import param_axes
from speccascade.models.interface import Model, Params
from speccascade.sharding import Layout, hosts
from speccascade.sharding.layout import loading
from speccascade.text import Tokenizer

# How a model computes and in what it is kept, which a config may say beside the form it takes.
_DTYPES = ("dtype", "param_dtype")


class Given(NamedTuple):
    """A trained model and where it was found.

    Attributes:
      source: as the config names it.
      model: its description. It may have more token ids than the tokenizer: rows that pad.
      params: its parameters.
      tokenizer: its own.
    """

    source: str
    model: Model
    params: Params
    tokenizer: Tokenizer


def load(source: str, layout: Layout | None = None) -> Given | None:
    """Loads a model, None where none is named.

    Args:
      source: as `pairs.load_model` takes it.
      layout: where its parameters go; None for the default device.

    Raises:
      UserError: there is none, or its tokenizer writes ids that it does not have.
    """
    if not source:
        return None
    where = layout and loading(layout, "expert", param_axes)
    model, params, tokenizer, *_ = pairs.load_model(source, shardings=where)
    if tokenizer.vocab_size > model.vocab_size:
        tokenizer = tokenizer.trimmed(model.vocab_size)
    if layout is not None:
        params = hosts.put(params, layout.of("expert", model).params(model))
    return Given(source, model, params, tokenizer)


def form(
    section: Mapping[str, Any] | None, vocab_size: int, begun: Given | None, frozen: bool = False
) -> Model:
    """Returns the model that is trained.

    Args:
      section: the config's `model`. What begins from another model takes its form from there: the
        section may then say in which dtypes it computes and is kept, and nothing else.
      vocab_size: the tokenizer's, of a model that begins from none.
      begun: the model that it begins from, None for none.
      frozen: whether its weights are not trained, and so stay in their dtype.

    Raises:
      UserError: the section is wrong or says another form, or the model cannot be trained.
    """
    section = {key: section[key] for key in section or () if key != "vocab_size"}
    if begun is None:
        model = models.build({**section, "vocab_size": vocab_size}, "config.model")
    else:
        model = _of_form(section, begun, frozen)
    if model.config.weight_dtype is not None:
        raise UserError(
            "int8 weights cannot be trained; leave out model.weight_dtype, begin from weights that "
            "are not rounded, and round the trained ones with the pair's weights=int8"
        )
    if model.config.head_size is not None:
        raise UserError(
            f"a head over {model.config.head_size} token ids is for drafters that "
            "scripts/distill.py makes; leave out model.head_size, or begin from another model"
        )
    return model


def _of_form(section: Mapping[str, Any], begun: Given, frozen: bool) -> Model:
    there = models.describe(begun.model)
    here = {"family": there["family"], **section}
    differ = ["family"] if here["family"] != there["family"] else []
    if not differ:
        kept = {} if frozen else {"param_dtype": "float32"}
        model = models.build({**there, **kept, **section}, "config.model")
        here = models.describe(model)
        differ = [key for key in here if key not in _DTYPES and there.get(key) != here[key]]
    if differ:
        found = ", ".join(f"{key} ({there.get(key)} there, {here[key]} here)" for key in differ)
        raise UserError(
            f"train.init_from={begun.source} is another model: {found}; leave out config.model to "
            "take its form"
        )
    return model


def first_params(model: Model, seed: int, begun: Given | None, layout: Layout | None) -> Params:
    """Returns fresh parameters or a trained model's, in the dtype in which they are trained.

    Args:
      model: from `form`.
      seed: of fresh ones.
      begun: the trained model, None for none.
      layout: where they go; None for the default device.
    """
    key = randomness.key(seed)
    if begun is not None:
        fresh = models.shapes(model)
        return jax.tree.map(lambda old, new: jnp.asarray(old, new.dtype), begun.params, fresh)
    if layout is None:
        return model.init(key)  # compiled by shape, not by leaf: many layers take no longer
    # No device need hold all of it.
    return jax.jit(model.init, out_shardings=layout.of("expert", model).params(model))(key)


def tokenizer(
    section: Mapping[str, Any] | None, workdir: str, task: tasks.Task, given: Sequence[Given]
) -> Tokenizer:
    """Returns the workdir's tokenizer or, where there is none, the given models' or a new one.

    Args:
      section: the config's `tokenizer`, of a model that is given none.
      workdir: where it is kept; nothing is written.
      task: what a new one learns from.
      given: the models, of one tokenizer.

    Raises:
      UserError: the workdir has another tokenizer than a model.
    """
    if text.is_in(workdir):
        there = text.load(workdir)
        for model in given:
            check_alike(there, workdir, model)
        return there
    if given:
        return given[0].tokenizer
    examples = task.examples("train", section["train_examples"])
    texts = (e.prompt + e.answer for e in examples)
    return text.train(texts, section["vocab_size"])


def check_alike(tokenizer: Tokenizer, whose: str, other: Given) -> None:
    """Raises UserError where a model has another tokenizer than `whose`."""
    if tokenizer != other.tokenizer:
        raise UserError(
            f"{whose} has another tokenizer than {other.source}; take models of one tokenizer, and "
            "a new workdir for each"
        )
