"""Trains a drafter that begins as some of its expert's layers on what the two write."""

import contextlib
import dataclasses
import itertools
import os
from functools import partial
from typing import Any, cast

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import PartitionSpec as P

from speccascade import models, pairs, tasks
from speccascade.distillation import rounds, texts, writing
from speccascade.distillation.imitation import Imitation, evaluate
from speccascade.distillation.rounds import Rounds
from speccascade.distillation.texts import Texts
from speccascade.distillation.writing import EXAMPLE, Writer
from speccascade.errors import UserError
from speccascade.importing import Loaded
from speccascade.inputs import optional_fields, paths, values
from speccascade.models import trim
from speccascade.models.axes import param_axes
from speccascade.models.interface import Model
from speccascade.models.shrink import SHARED, shrink
from speccascade.sharding import Layout, for_training, from_config, hosts
from speccascade.sharding.layout import loading
from speccascade.training import losses, memory, steps
from speccascade.training.optimizer import make_optimizer
from speccascade.training.step import Step, check_batch, check_layout, needed
from speccascade.workdir import checkpoints, claim, files, sharing

SECTIONS = ("expert", "texts", "drafter", "train")
_NEEDED = {"expert": ("source", "dtype"), "drafter": ("layers", "head_size"), "train": ("loss",)}


def distill(config: ml_collections.ConfigDict, workdir: str) -> dict[str, float]:
    """Makes a drafter for an expert, or goes on where an earlier process stopped.

    Args:
      config: `expert` (its source and dtype), `texts`, `drafter` and `train`; see
        configs/smollm2.py. Where wanted `rounds`, in which the drafter learns on its own texts too,
        see configs/on_policy.py, and `mesh`, the devices along each axis, on which both models lie.
        Where it has a `task`, its held-out prompts are kept out of the texts, and with
        `texts.prompts` "task" those of its training rows are what is asked.
      workdir: becomes that of a trained model, complete beside its expert; gs:// works.

    Returns:
      The last validation figures; see `evaluate`.

    Raises:
      UserError: something is missing or out of range, or a device has too little memory.
    """
    workdir = paths.plain(workdir)
    with hosts.agreed():
        c = _checked(config)
        layout, for_writing = for_training(config.get("mesh")), from_config(config.get("mesh"))
        check_batch("train.batch_size", c.train.batch_size, c.train.get("accumulate", 1), layout)
        writing.check(c.texts, for_writing)
        make_optimizer(c.train, layout)
        asked, exclude = _prompts(config)
    expert = _expert(c.expert.source, c.expert.dtype, layout)
    make = partial(shrink, expert.model, expert.params, **_kept(c.drafter))
    size = c.drafter.head_size
    model = make(head_ids=size and np.arange(min(size, expert.model.vocab_size)))[0]
    # Says what is wrong with the layers before the expert writes for an hour. Its vocabulary, which
    # is not trained, may lie whole.
    check_layout(layout, model, ("vocab", "kv_heads"))
    step = _step(c.train, model, expert.model, layout)
    memory.check(memory.needs(step, _trained(models.shapes(model))))
    directory = epath.Path(workdir) / "texts"
    with hosts.agreed():
        writer = Writer(expert, c.texts, for_writing, asked)
        claim.check_config(workdir, c.to_dict(), steps.MAY_CHANGE)
        writing.check_prompts(writer, directory, exclude)
    hosts.check_alike(expert.tokenizer.content_hash, "tokenizer")
    with contextlib.ExitStack() as held:
        check = None

        def begin():
            nonlocal check
            check = held.enter_context(claim.claim(workdir))
            claim.claim_workdir(workdir, c.to_dict(), steps.MAY_CHANGE)

        hosts.from_first(begin)
        saved = held.enter_context(checkpoints.manager(workdir))
        writing.write(writer, directory, exclude)
        with hosts.agreed():
            found = texts.load(directory, c.texts.num_texts)
        held_out, learnt = found.split(c.train.validation_texts)
        _, params = make(head_ids=head_ids(learnt, size, expert))

        def describe():
            expert.tokenizer.save(workdir)
            files.write_json(os.path.join(workdir, "model.json"), models.describe(model))

        hosts.from_first(describe)
        sharing.record(workdir, expert.params, c.expert.source, expert.context_length)
        ids = params["head"].get("ids")
        if layout is not None and ids is not None:
            ids = hosts.put(ids, layout.rows.sharding(P(), ids.shape))
        embedding = params[SHARED]
        fixed = {"embedding": embedding, "expert": expert.params, "ids": ids}

        def whole(params):
            return {**params, SHARED: embedding}

        mine = needed(c.train.batch_size, layout, step.accumulate)
        batches = Rounds(c, learnt, epath.Path(workdir), writer, model, whole, mine)

        def prepare(params, number):
            batches.prepare(params, number, partial(checkpoints.finish, saved))

        def read(number):
            return map(batches.batch, itertools.count(number))

        def advance(params, state, number, batch):
            given = _trained(params), state, batch, fixed, jax.random.key(0)
            params, state, logged = step(*given)
            return _with_ids(params, ids), state, logged, step.objective.work(batch)

        def measure(params):
            return evaluate(model, whole(params), expert, held_out, layout=layout)

        params, state = step.start(_trained(params))
        start = _with_ids(params, ids), state
        shown = "acceptance"
        return steps.run(
            c.train, workdir, saved, start, read, advance, measure, shown, check, prepare=prepare
        )


def _checked(config: ml_collections.ConfigDict) -> ml_collections.FrozenConfigDict:
    """Returns the sections of a config once they have been looked at, without `mesh` and `task`."""
    values.section("", config, SECTIONS, EXAMPLE)
    wanted = (*SECTIONS, *(["rounds"] if config.get("rounds") is not None else []))
    sections = values.json_ready({k: config[k] for k in wanted})
    known = ("loss", *optional_fields.DISTILLATION)
    steps.check(sections["train"], ("validation_texts",), known, EXAMPLE)
    for name, fields in _NEEDED.items():
        values.section(name, sections[name], fields, EXAMPLE)
    if sections["drafter"]["head_size"] is not None:
        values.whole("drafter.head_size", sections["drafter"]["head_size"], 1)
    c = ml_collections.FrozenConfigDict(sections)
    losses.distillation(c.train.loss)
    writing.check(c.texts)
    learnt = c.texts.num_texts - c.train.validation_texts
    if learnt < 1:
        raise UserError(
            f"train.validation_texts={c.train.validation_texts} must be below "
            f"texts.num_texts={c.texts.num_texts}"
        )
    if "rounds" in c:
        rounds.check(c.rounds, c.train, learnt)
    return c


def _step(
    c: ml_collections.FrozenConfigDict, model: Model, expert: Model, layout: Layout | None
) -> Step:
    """Returns what the steps are compiled for."""
    learner = dataclasses.replace(cast(Any, model), remat=c.get("remat", False))
    objective = Imitation(learner, expert, c.loss)
    how = c.get("accumulate", 1), c.get("ema_decay", 0.0)
    return Step(model, objective, make_optimizer(c, layout), layout, *how)


def head_ids(found: Texts, size: int | None, expert: Loaded) -> np.ndarray | None:
    """Returns the ids that the expert wrote most often, int32 [size], ascending.

    What ends a text is among them. None where `size` is.
    """
    if size is None:
        return None
    counts = np.zeros(expert.model.vocab_size, np.int64)
    position = np.arange(found.tokens.shape[1])
    own = (position >= found.first[:, None]) & (position < found.length[:, None])
    np.add.at(counts, found.tokens[own], 1)
    counts[list(expert.tokenizer.eos_ids)] = counts.max() + 1
    # Of equally frequent ones the lowest: vocabularies are built from frequent to rare.
    return np.sort(np.argsort(-counts, kind="stable")[:size]).astype(np.int32)


def _expert(source: str, dtype: str, layout: Layout | None) -> Loaded:
    """Loads the expert without token ids that no token has, so that it never writes one."""
    where = None if layout is None else loading(layout, "expert", param_axes)
    found = pairs.load_model(source, dtype, shardings=where)
    model, params = trim.to_vocabulary(found.model, found.params, found.tokenizer.vocab_size)
    if layout is not None:
        params = hosts.put(params, layout.of("expert", model).params(model))
    return found._replace(model=model, params=params)


def _prompts(config: ml_collections.ConfigDict) -> tuple[list[str], list[str]]:
    """Returns the task's prompts that are asked, if any, and those that it is measured on."""
    wanted = config.texts.prompts == writing.TASK
    if "task" not in config:
        if wanted:
            raise UserError(f"texts.prompts={writing.TASK} needs the section task; see {EXAMPLE}")
        return [], []
    task = tasks.make(config.task, config.texts.chat)
    held_out = [e.prompt for split in ("validation", "test") for e in task.examples(split)]
    return [e.prompt for e in task.examples("train")] if wanted else [], held_out


def _kept(drafter: dict[str, Any]) -> dict[str, Any]:
    """Returns which layers the config keeps; a new model has an encoder only if its expert has."""
    return {
        name: values.wholes(f"drafter.{name}", drafter[name], 0)
        for name in ("layers", "encoder_layers")
        if name in drafter and (name == "layers" or drafter[name] is not None)
    }


def _trained(params):
    """Returns what is trained: neither the embedding nor the head's token ids."""
    own = {key: value for key, value in params.items() if key != SHARED}
    return {**own, "head": {"weight": params["head"]["weight"]}}


def _with_ids(params, ids):
    """Returns them with it."""
    return params if ids is None else {**params, "head": {**params["head"], "ids": ids}}
