"""Trains a model on a task's worked answers."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import ml_collections

from speccascade import models, randomness, tasks, text
from speccascade.errors import UserError
from speccascade.inputs import optional_fields, paths, values
from speccascade.models.interface import Model
from speccascade.sharding import Layout, for_training, hosts
from speccascade.sharding.layout import lay
from speccascade.training import adapters, batches, data, given, losses, memory, steps
from speccascade.training.objective import Fixed, Objective, evaluate
from speccascade.training.optimizer import make_optimizer
from speccascade.training.step import Step, check_batch, check_layout, needed
from speccascade.workdir import checkpoints, claim, files

# What a workdir belongs to. Evaluation and the mesh may change without training anew.
SECTIONS = ("task", "tokenizer", "model", "train")
_TOKENIZER = ("vocab_size", "train_examples")
_EXAMPLE = "configs/gsm_symbolic.py"


def train(
    config: ml_collections.ConfigDict, workdir: str, profile: bool = False
) -> dict[str, float]:
    """Trains the model of `config` in `workdir`, or goes on where an earlier process stopped.

    Args:
      config: `task` and `train`; `model` and `tokenizer`, unless a trained model that it begins
        from has them; where wanted `mesh`, the devices along each axis.
      workdir: made if it is missing; gs:// works.
      profile: whether to write a trace of a few steps to `workdir`/profile.

    Returns:
      The last validation figures.

    Raises:
      UserError: something is missing or out of range. Nothing is made in `workdir` then.
    """
    workdir = paths.on_disk(workdir, "a profile") if profile else paths.plain(workdir)
    with hosts.agreed():
        c, layout = prepare(config)
        task = tasks.make(config.task)
    teacher = given.load(c.distill_from, layout)
    begun = given.load(c.get("init_from", ""), layout)
    if teacher and begun:
        given.check_alike(teacher.tokenizer, teacher.source, begun)
    known = [found for found in (begun, teacher) if found]
    section, own = config.get("model"), config.get("tokenizer")
    size = known[0].tokenizer.vocab_size if known else own["vocab_size"]
    taught = teacher and teacher.model
    lora = adapters.read(c.get("lora"))
    first = given.form(section, size, begun, lora is not None)
    _check_model(first, c, layout)  # before anything is written
    memory.check(memory.needs(make_step(c, first, size, taught, layout)))
    sections = {k: config[k] for k in SECTIONS if config.get(k) is not None}

    with hosts.agreed():
        claim.check_config(workdir, sections, steps.MAY_CHANGE)
        tokenizer = given.tokenizer(own, workdir, task, known)
        model = given.form(section, tokenizer.vocab_size, begun, lora is not None)
        _check_model(model, c, layout)  # a new tokenizer may have fewer ids than asked for
        kept = {s: os.path.join(workdir, "data", f"{s}.npz") for s in ("train", "validation")}
        reads = tokenizer, c.row_length, models.answers_begin(model)
        learnt, held_out = (data.load_or_tokenize(kept[s], task, s, *reads) for s in kept)
    hosts.check_alike(tokenizer.content_hash, "tokenizer")

    with contextlib.ExitStack() as held:
        check = None

        def start():
            nonlocal check
            check = held.enter_context(claim.claim(workdir))
            claim.claim_workdir(workdir, sections, steps.MAY_CHANGE)
            if not text.is_in(workdir):
                tokenizer.save(workdir)
            files.write_json(os.path.join(workdir, "model.json"), models.describe(model))
            for path, problems in zip(kept.values(), (learnt, held_out), strict=True):
                data.keep(path, problems)

        hosts.from_first(start)
        # Beside adapters the workdir itself gets the model that they become.
        own_states = workdir if lora is None else os.path.join(workdir, "adapters")
        saved = held.enter_context(checkpoints.manager(own_states))
        step = make_step(c, model, tokenizer.vocab_size, taught, layout)
        objective = cast("Objective", step.objective)
        params = given.first_params(model, c.seed, begun, layout)
        fixed = Fixed(teacher and teacher.params)
        if lora is not None:
            if layout is not None:
                params = hosts.put(params, layout.of("expert", model).params(model))
            fixed, params = fixed._replace(weights=params), lora.first(params, c.seed)
        dropped = randomness.key(c.seed)
        mine = needed(c.batch_size, layout, c.get("accumulate", 1))

        if c.get("sort_by_length"):
            order = batches.rows_of_like_length(learnt.length, c.batch_size, c.seed)
        else:
            order = batches.rows_of_steps(len(learnt), c.batch_size, c.seed)
        read = partial(batches.read_ahead, order.map(lambda r: objective.batch(learnt, r, mine)))

        def advance(params, state, number, batch):
            key = jax.random.fold_in(dropped, number)
            taken = step(params, state, batch, fixed, key)
            return *taken, objective.work(batch)

        def measure(params):
            whole = objective.whole(params, fixed)
            return evaluate(model, whole, held_out, c.batch_size, tokenizer.vocab_size, layout)

        begin, shown = step.start(params), "validation_whole_answer"
        like = lay(begin[0], jax.tree.map(lambda x: x.sharding, begin[0]))
        traced = os.path.join(workdir, "profile") if profile else ""
        figures = steps.run(c, workdir, saved, begin, read, advance, measure, shown, check, traced)
        if lora is not None:
            checkpoints.finish(saved)
            number, params, _ = checkpoints.restore(saved, like)
            with hosts.agreed():  # before one of them writes it
                there = checkpoints.has(workdir, number)
            if not there:
                merged = jax.jit(lora.merged)(fixed.weights, params)
                checkpoints.save_params(workdir, merged, number)
        return figures


def prepare(
    config: ml_collections.ConfigDict,
) -> tuple[ml_collections.FrozenConfigDict, Layout | None]:
    """Returns the config's `train` and the layout; nothing is loaded.

    Raises:
      UserError: something is missing or out of range, or does not divide over the mesh.
    """
    c = _checked(config)
    layout = for_training(config.get("mesh"))
    check_batch("train.batch_size", c.batch_size, c.get("accumulate", 1), layout)
    make_optimizer(c, layout)
    return c, layout


def check_section(c: Mapping[str, Any]) -> None:
    """Raises UserError where a config's `train` lacks a field, has an unknown one, or a number is
    out of range."""
    own = ("prompt_weight", "distill_from")
    steps.check(c, ("row_length",), (*own, *optional_fields.TRAINING), _EXAMPLE)
    values.section("train", c, own, _EXAMPLE)


def make_step(
    c: Mapping[str, Any], model: Model, known: int, teacher: Model | None, layout: Layout | None
) -> Step:
    """Returns what the steps of a training are compiled for.

    Args:
      c: the config's `train`.
      model: what is trained.
      known: token ids that the tokenizer has.
      teacher: what it learns from, None for none.
      layout: how both lie on a mesh; None for one device.
    """
    objective = Objective(
        model=dataclasses.replace(cast(Any, model), remat=c.get("remat", False)),
        known=known,
        prompt_weight=c["prompt_weight"],
        dropout=c.get("dropout", 0.0),
        teacher=teacher,
        distance=c["distill_loss"] if teacher else "",
        distill_weight=c.get("distill_weight", 0.0) if teacher else 0.0,
        adapters=adapters.read(c.get("lora")),
    )
    how = c.get("accumulate", 1), c.get("ema_decay", 0.0)
    return Step(model, objective, make_optimizer(c, layout), layout, *how)


def _checked(config: ml_collections.ConfigDict) -> ml_collections.FrozenConfigDict:
    """Returns the config's `train` once its sections have been looked at."""
    values.section("", config, ("task", "train"), _EXAMPLE)
    check_section(config.train)
    c = ml_collections.FrozenConfigDict(config.train)
    for name in ("prompt_weight", "dropout", "distill_weight", "embedding_rate"):
        values.number(f"train.{name}", c.get(name, 0.0))
    if not 0 <= c.get("dropout", 0.0) < 1:
        raise UserError(f"train.dropout={c.dropout} must be at least 0 and below 1")
    if c.distill_from:
        values.section("train", config.train, ("distill_loss", "distill_weight"), _EXAMPLE)
        losses.distillation(c.distill_loss)
    if adapters.read(c.get("lora")) is not None and not c.get("init_from"):
        raise UserError("train.lora is beside the weights of a model; name it by train.init_from")
    if not c.get("init_from"):
        values.section("", config, ("model",), _EXAMPLE)
    if config.get("model") is not None:
        values.section("model", config.model)
    if not (c.get("init_from") or c.distill_from):
        values.section("", config, ("tokenizer",), _EXAMPLE)
        values.section("tokenizer", config.tokenizer, _TOKENIZER, _EXAMPLE)
        for name in _TOKENIZER:
            values.whole(f"tokenizer.{name}", config.tokenizer[name], 1)
    return c


def _check_model(model: Model, c: Mapping[str, Any], layout: Layout | None) -> None:
    """Raises UserError where a model cannot be trained as the config says."""
    check_layout(layout, model)
    if not models.answers_begin(model):
        if c.get("dropout"):
            raise UserError("only an encoder-decoder has dropout; set train.dropout to 0")
    elif c["prompt_weight"]:
        raise UserError("an encoder-decoder does not predict prompts; set train.prompt_weight to 0")
