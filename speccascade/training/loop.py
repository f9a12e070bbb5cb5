"""Trains a model on a task's worked answers."""

import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from speccascade import models, pairs, randomness, tasks, text
from speccascade.errors import UserError
from speccascade.inputs import paths, values
from speccascade.models.interface import Dropout, Model, Params
from speccascade.text import Tokenizer
from speccascade.training import data, losses, steps
from speccascade.training.optimizer import make_optimizer
from speccascade.workdir import checkpoints, claim, files

# What a workdir belongs to. Evaluation may change without training anew.
SECTIONS = ("task", "tokenizer", "model", "train")
_TOKENIZER = ("vocab_size", "train_examples")
_EXAMPLE = "configs/gsm_symbolic.py"


class Given(NamedTuple):
    """A trained model that another begins from or learns from, and where it was found."""

    source: str
    model: Model
    params: Params
    tokenizer: Tokenizer


def _whole_loss(params, batch, teacher_params, *, model, teacher_model, config):
    """Scalar loss of prompts and answers, and what is logged of it."""
    tokens = batch["tokens"]
    logits = model.forward(params, tokens, batch["prompt_length"])[:, :-1]
    weigh = partial(losses.token_weights, tokens.shape[1], batch["prompt_length"], batch["length"])
    teacher_logits = None
    if teacher_model is not None:
        teacher_logits = teacher_model.forward(teacher_params, tokens, batch["prompt_length"])
        teacher_logits = teacher_logits[:, :-1]
    weights = weigh(config.prompt_weight), weigh(0.0)
    return _weighted(logits, tokens[:, 1:], *weights, teacher_logits, config)


def _answer_loss(params, batch, teacher_params, *, model, teacher_model, config, key=None):
    """The same of answers alone; `key` is that of dropout."""
    given = batch["prompt"], batch["prompt_length"], batch["answer"]
    thinned = {"dropout": Dropout(key, rate)} if (rate := config.get("dropout")) else {}
    logits = model.answer_logits(params, *given, **thinned)
    teacher_logits = None
    if teacher_model is not None:
        teacher_logits = teacher_model.answer_logits(teacher_params, *given)
    weights = _inside(batch)
    return _weighted(logits, batch["answer"], weights, weights, teacher_logits, config)


def _inside(batch):
    """1 for an answer's tokens and its EOS, 0 for padding: [B, A] float32."""
    index = jnp.arange(batch["answer"].shape[1])
    return (index < batch["answer_length"][:, None]).astype(jnp.float32)


def _weighted(logits, targets, weights, answer, teacher_logits, config):
    nll = losses.cross_entropy(logits, targets)
    loss = losses.weighted_mean(nll, weights)
    logged = {"answer_nll": losses.weighted_mean(nll, answer)}
    if teacher_logits is not None:
        distance = losses.distillation(config.distill_loss)(
            jax.nn.log_softmax(logits), jax.nn.log_softmax(teacher_logits)
        )
        logged["distill"] = losses.weighted_mean(distance, answer)
        loss = (1 - config.distill_weight) * loss + config.distill_weight * logged["distill"]
    return loss, {"loss": loss, **logged}


# Two programs: the first is compiled for every shape of a batch, the second takes long and has one.
@partial(jax.jit, static_argnames=("model", "teacher_model", "config"))
def _gradients(params, batch, teacher_params, key, *, model, teacher_model, config):
    loss = _whole_loss if config.prompt_weight else partial(_answer_loss, key=key)
    loss = partial(loss, model=model, teacher_model=teacher_model, config=config)
    return jax.grad(loss, has_aux=True)(params, batch, teacher_params)


@partial(jax.jit, static_argnames="optimizer", donate_argnums=(0, 1))
def _update(params, state, grads, *, optimizer):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, optax.tree.norm(grads)


@partial(jax.jit, static_argnames="model")
def _eval_step(params, batch, *, model):
    """Sums over a batch: answer tokens, their loss, those that are argmax, answers that all are."""
    given = batch["prompt"], batch["prompt_length"], batch["answer"]
    logits = model.answer_logits(params, *given)
    weights = _inside(batch)
    right = jnp.argmax(logits, -1) == batch["answer"]
    return {
        "tokens": jnp.sum(weights),
        "nll": jnp.sum(losses.cross_entropy(logits, batch["answer"]) * weights),
        "right": jnp.sum(right * weights),
        "whole": jnp.sum(jnp.all(right | (weights == 0), axis=1) & (batch["answer_length"] > 0)),
    }


def evaluate(model: Model, params: Params, problems: data.Problems, batch_size: int) -> dict:
    """Teacher-forced figures on held-out problems.

    `whole_answer` is the share of answers whose every token is the argmax given the true ones
    before it. Greedy decoding writes exactly those answers, so it bounds exact match from below.
    """
    totals: dict[str, float] = {}
    order = np.argsort(problems.length, kind="stable")
    for start in range(0, len(problems), batch_size):
        rows = np.arange(start, start + batch_size)
        batch = problems.answers(order[np.minimum(rows, len(problems) - 1)])
        batch["answer_length"] *= rows < len(problems)  # a row of length 0 counts nowhere
        sums = _eval_step(params, batch, model=model)
        totals = {k: totals.get(k, 0.0) + float(v) for k, v in sums.items()}
    return {
        "validation_nll": totals["nll"] / totals["tokens"],
        "validation_token_accuracy": totals["right"] / totals["tokens"],
        "validation_whole_answer": totals["whole"] / len(problems),
    }


def _given(source: str) -> Given | None:
    if not source:
        return None
    model, params, tokenizer, *_ = pairs.load_model(source)
    return Given(source, model, params, tokenizer)


def _tokenizer(config, workdir: str, task: tasks.Task, given: Sequence[Given]) -> Tokenizer:
    """The workdir's tokenizer; at the first start that of the given models, or a new one."""
    if text.is_in(workdir):
        tokenizer = text.load(workdir)
        for model in given:
            _check_tokenizers(tokenizer, workdir, model)
        return tokenizer
    if given:
        tokenizer = given[0].tokenizer
    else:
        examples = task.examples("train", config.tokenizer.train_examples)
        tokenizer = text.train((e.prompt + e.answer for e in examples), config.tokenizer.vocab_size)
    tokenizer.save(workdir)
    return tokenizer


def _check_tokenizers(tokenizer: Tokenizer, whose: str, other: Given) -> None:
    if tokenizer != other.tokenizer:
        raise UserError(
            f"{whose} has another tokenizer than {other.source}; take models of one tokenizer, and "
            "a new workdir for each"
        )


def _check_given(config, teacher: Given | None, begun: Given | None) -> None:
    """Raises UserError where a model cannot begin from, or learn from, what it is given."""
    if begun is None:
        return
    if teacher is not None:
        _check_tokenizers(teacher.tokenizer, teacher.source, begun)
    model = models.build({**config.model, "vocab_size": begun.tokenizer.vocab_size})
    there, here = models.describe(begun.model), models.describe(model)
    of_no_account = ("dtype", "param_dtype")
    differ = [k for k in here if k not in of_no_account and there.get(k) != here[k]]
    if differ:
        found = ", ".join(f"{k} ({there.get(k)} there, {here[k]} here)" for k in differ)
        raise UserError(f"train.init_from={begun.source} is another model: {found}")


def _first_params(model: Model, seed: int, begun: Given | None) -> Params:
    """Fresh parameters, or those of a trained model, in the dtype in which they are trained."""
    if begun is None:
        return model.init(randomness.key(seed))
    fresh = models.shapes(model)
    return jax.tree.map(lambda old, new: jnp.asarray(old, new.dtype), begun.params, fresh)


def train(config: ml_collections.ConfigDict, workdir: str) -> dict[str, float]:
    """Trains the model of `config` in `workdir`, or goes on where an earlier process stopped.

    Returns:
      The last validation figures.

    Raises:
      UserError: something is missing or out of range. Nothing is made in `workdir` then.
    """
    workdir = paths.on_disk(workdir, "the workdir of a training")
    values.section("", config, SECTIONS, _EXAMPLE)
    steps.check(config.train, ("row_length",), _EXAMPLE)
    values.section("train", config.train, ("prompt_weight", "distill_from"), _EXAMPLE)
    values.section("model", config.model)
    values.section("tokenizer", config.tokenizer, _TOKENIZER, _EXAMPLE)
    c = ml_collections.FrozenConfigDict(config.train)
    for name in _TOKENIZER:
        values.whole(f"tokenizer.{name}", config.tokenizer[name], 1)
    for name in ("prompt_weight", "dropout", "distill_weight", "embedding_rate"):
        values.number(f"train.{name}", c.get(name, 0.0))
    if config.model.get("family") == "encoder_decoder" and c.prompt_weight:
        raise UserError("an encoder-decoder does not predict prompts; set train.prompt_weight to 0")
    if not 0 <= c.get("dropout", 0.0) < 1:
        raise UserError(f"train.dropout={c.dropout} must be at least 0 and below 1")
    if c.get("dropout") and config.model.get("family") != "encoder_decoder":
        raise UserError("only an encoder-decoder has dropout; set train.dropout to 0")
    if config.model.get("weight_dtype"):
        raise UserError(
            "int8 weights cannot be trained; leave out model.weight_dtype, and round the trained "
            "ones with the pair's weights=int8"
        )
    task = tasks.make(config.task)
    optimizer = make_optimizer(c)
    if c.distill_from:
        losses.distillation(c.distill_loss)
    teacher, begun = _given(c.distill_from), _given(c.get("init_from", ""))
    _check_given(config, teacher, begun)
    claim.claim_workdir(workdir, {k: config[k] for k in SECTIONS})
    tokenizer = _tokenizer(config, workdir, task, [given for given in (teacher, begun) if given])
    model = models.build({**config.model, "vocab_size": tokenizer.vocab_size})
    params = _first_params(model, c.seed, begun)
    files.write_json(os.path.join(workdir, "model.json"), models.describe(model))

    splits = {
        split: data.load_or_tokenize(
            os.path.join(workdir, "data", split + ".npz"),
            task,
            split,
            tokenizer,
            c.row_length,
            models.answers_begin(model),
        )
        for split in ("train", "validation")
    }
    with checkpoints.manager(workdir) as saved:
        return _run(c, workdir, saved, model, params, teacher, optimizer, splits)


def _run(c, workdir, saved, model, params, teacher, optimizer, splits) -> dict[str, float]:
    gradients = partial(
        _gradients, model=model, teacher_model=teacher.model if teacher else None, config=c
    )
    teacher_params = teacher.params if teacher else None

    problems = splits["train"]
    batch_of = problems.batch if c.prompt_weight else problems.answers
    dropped = randomness.key(c.seed)

    def take(params, state, step):
        if c.get("sort_by_length"):
            rows = data.rows_of_like_length(step, problems.length, c.batch_size, c.seed)
        else:
            rows = data.rows_of_step(step, len(problems), c.batch_size, c.seed)
        key = jax.random.fold_in(dropped, step)
        grads, logged = gradients(params, batch_of(rows), teacher_params, key)
        params, state, norm = _update(params, state, grads, optimizer=optimizer)
        return params, state, {**logged, "grad_norm": norm}

    def measure(params):
        return evaluate(model, params, splits["validation"], c.batch_size)

    start = (params, optimizer.init(params))
    return steps.run(c, workdir, saved, start, take, measure, "validation_whole_answer")
