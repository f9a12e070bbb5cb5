"""Trains a drafter that begins as some of its expert's layers on what the expert writes."""

import dataclasses
import os
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import PartitionSpec as P

from speccascade import importing, models, tasks
from speccascade.distillation import texts
from speccascade.distillation.texts import EXAMPLE, Texts
from speccascade.errors import UserError
from speccascade.importing import Loaded
from speccascade.inputs import optional_fields, paths, values
from speccascade.models import costs, trim
from speccascade.models.axes import param_axes
from speccascade.models.interface import Model, Params
from speccascade.models.shrink import SHARED, shrink
from speccascade.sharding import Layout, active, for_training, from_config, hosts
from speccascade.sharding.layout import loading
from speccascade.training import data, losses, steps
from speccascade.training.optimizer import make_optimizer
from speccascade.training.step import Step, Work, check_batch, check_layout
from speccascade.workdir import checkpoints, claim, files, sharing

SECTIONS = ("expert", "texts", "drafter", "train")
_NEEDED = {"expert": ("source", "dtype"), "drafter": ("layers", "head_size"), "train": ("loss",)}


def distill(config: ml_collections.ConfigDict, workdir: str) -> dict[str, float]:
    """Makes a drafter for an expert, or goes on where an earlier process stopped.

    Args:
      config: `expert` (its source and dtype), `texts`, `drafter` and `train`; see
        configs/smollm2.py. Prompts of its `task`, if it has one, are kept out of the texts. Where
        wanted `mesh`, the devices along each axis, on which both models lie.
      workdir: becomes that of a trained model, complete beside its expert; gs:// works.

    Returns:
      The last validation figures; see `evaluate`.

    Raises:
      UserError: something is missing or out of range.
    """
    workdir = paths.plain(workdir)
    values.section("", config, SECTIONS, EXAMPLE)
    sections = values.json_ready({k: config[k] for k in SECTIONS})
    known = ("loss", *optional_fields.DISTILLATION)
    steps.check(sections["train"], ("validation_texts",), known, EXAMPLE)
    for name, needed in _NEEDED.items():
        values.section(name, sections[name], needed, EXAMPLE)
    if sections["drafter"]["head_size"] is not None:
        values.whole("drafter.head_size", sections["drafter"]["head_size"], 1)
    c = ml_collections.FrozenConfigDict(sections)
    losses.distillation(c.train.loss)
    layout = for_training(config.get("mesh"))
    optimizer = make_optimizer(c.train, layout)
    check_batch("train.batch_size", c.train.batch_size, c.train.get("accumulate", 1), layout)
    texts.check(c.texts)
    writing = from_config(config.get("mesh"))
    if c.train.validation_texts >= c.texts.num_texts:
        raise UserError(
            f"train.validation_texts={c.train.validation_texts} must be below "
            f"texts.num_texts={c.texts.num_texts}"
        )
    exclude = _held_out(config)
    expert = _expert(c.expert.source, c.expert.dtype, layout)
    make = partial(shrink, expert.model, expert.params, **_kept(sections["drafter"]))
    # Says what is wrong with the layers before the expert writes for an hour. Its vocabulary, which
    # is not trained, may lie whole.
    check_layout(layout, make()[0], ("vocab", "kv_heads"))
    claim.check_config(workdir, sections, steps.MAY_CHANGE)
    directory = epath.Path(workdir) / "texts"
    writer = texts.Writer(expert, c.texts, directory, exclude, writing)
    with claim.claim(workdir) as check, checkpoints.manager(workdir) as saved:
        claim.claim_workdir(workdir, sections, steps.MAY_CHANGE)
        writer.write()
        found = texts.load(directory, c.texts.num_texts)
        held_out, learnt = found.split(c.train.validation_texts)
        model, params = make(head_ids=head_ids(learnt, c.drafter.head_size, expert))

        expert.tokenizer.save(workdir)
        files.write_json(os.path.join(workdir, "model.json"), models.describe(model))
        sharing.record(workdir, expert.params, c.expert.source, expert.context_length)
        ids = params["head"].get("ids")
        if layout is not None and ids is not None:
            ids = hosts.put(ids, layout.rows.sharding(P(), ids.shape))
        embedding = params.pop(SHARED)
        fixed = {"embedding": embedding, "expert": expert.params, "ids": ids}
        learner = dataclasses.replace(cast(Any, model), remat=c.train.get("remat", False))
        objective = Imitation(learner, expert.model, c.train.loss)
        how = c.train.get("accumulate", 1), c.train.get("ema_decay", 0.0)
        step = Step(model, objective, optimizer, layout, *how)

        def advance(params, state, number):
            rows = data.rows_of_step(number, len(learnt), c.train.batch_size, c.train.seed)
            batch = learnt.batch(rows)
            given = _trained(params), state, batch, fixed, jax.random.key(0)
            params, state, logged = step(*given)
            return _with_ids(params, ids), state, logged, objective.work(batch)

        def measure(params):
            whole = {**params, SHARED: embedding}
            return evaluate(model, whole, expert, held_out, layout=layout)

        params, state = step.start(_trained(params))
        start = _with_ids(params, ids), state
        return steps.run(c.train, workdir, saved, start, advance, measure, "acceptance", check)


@dataclasses.dataclass(frozen=True)
class Imitation:
    """How far a drafter is from its expert on what that wrote; see `step.Objective`.

    Attributes:
      model: the drafter.
      expert: the expert, whose parameters, embedding and the head's ids are the fixed ones.
      distance: a name in `losses.DISTILLATION`.
    """

    model: Model
    expert: Model
    distance: str

    def work(self, batch):
        """Returns what a step on a batch has to do: the drafter's part, and the expert's head."""
        prompt, length = batch["prompt_length"], batch["length"]
        drafted = 3 * costs.scoring(self.model, prompt, length - prompt, length)
        tokens = int(np.sum(length))
        rows = self.model.config.head_size or self.expert.vocab_size
        return Work(tokens, drafted + 2 * rows * self.expert.config.d_model * tokens)

    def totals(self, batch):
        """Returns how many tokens of a batch the expert wrote."""
        return jnp.sum(_own(batch))

    def __call__(self, params, batch, totals, fixed, key):
        """Returns what a batch adds to the mean distance."""
        del key
        features = _expert_features(batch, self.expert, fixed["expert"])
        with active.use_for(self.expert):
            logits = self.expert.head_logits(fixed["expert"], features, fixed["ids"])
        log_p = logits - batch["log_normaliser"][:, :-1, None]
        log_q = _log_q(self.model, {**params, SHARED: fixed["embedding"]}, batch)
        distance = losses.distillation(self.distance)(log_q, log_p)
        loss = losses.mean_part(distance, _own(batch), totals)
        return loss, {"loss": loss}


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


def evaluate(
    model: Model,
    params: Params,
    expert: Loaded,
    found: Texts,
    batch_size: int = 8,
    layout: Layout | None = None,
) -> dict[str, float]:
    """Returns figures on texts, means over the tokens that the expert wrote.

    `acceptance` is the chance that lossless verification keeps a draft at temperature 1,
    `greedy_agreement` the share of positions at which both have the same most likely token, and
    `head_mass` what the expert gives to the ids that the drafter's head knows: the most that
    `acceptance` can be.
    """
    totals: dict[str, float] = {}
    for start in range(0, len(found), batch_size):
        rows = np.arange(start, start + batch_size)
        batch = found.batch(np.minimum(rows, len(found) - 1))
        batch["length"] = np.where(rows < len(found), batch["length"], 0)  # counts nowhere
        models_of = {"model": model, "expert": expert.model}
        sums = _measure(params, expert.params, batch, **models_of, layout=layout)
        totals = {k: totals.get(k, 0.0) + float(v) for k, v in sums.items()}
    tokens = totals.pop("tokens")
    return {name: total / tokens for name, total in totals.items()}


def _expert(source: str, dtype: str, layout: Layout | None) -> Loaded:
    """Loads the expert without token ids that no token has, so that it never writes one."""
    where = None if layout is None else loading(layout, "expert", param_axes)
    found = importing.load(source, dtype, shardings=where)
    model, params = trim.to_vocabulary(found.model, found.params, found.tokenizer.vocab_size)
    if layout is not None:
        params = hosts.put(params, layout.of("expert", model).params(model))
    return found._replace(model=model, params=params)


def _held_out(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the prompts that the drafter will be measured on."""
    if "task" not in config:
        return []
    task = tasks.make(config.task, config.texts.chat)
    return [e.prompt for split in ("validation", "test") for e in task.examples(split)]


def _kept(drafter: dict[str, Any]) -> dict[str, Any]:
    """Returns which layers the config keeps; a new model has an encoder only if its expert has."""
    return {
        name: values.wholes(f"drafter.{name}", drafter[name], 0)
        for name in ("layers", "encoder_layers")
        if name in drafter and (name == "layers" or drafter[name] is not None)
    }


def _trained(params):
    """Returns the parameters without the head's token ids, which are no numbers to train."""
    return {**params, "head": {"weight": params["head"]["weight"]}}


def _with_ids(params, ids):
    """Returns them with it."""
    return params if ids is None else {**params, "head": {**params["head"], "ids": ids}}


def _log_q(model, params, batch):
    """The drafter's log-probabilities of its head's ids after every token, `[B, T - 1, K]`."""
    features = model.features(params, batch["tokens"], batch["prompt_length"])[:, :-1]
    return jax.nn.log_softmax(model.head_logits(params, features))


def _expert_features(batch, expert, params):
    """What the expert's head reads, kept in bfloat16, in the dtype in which it reads it."""
    read = jax.eval_shape(expert.features, params, batch["tokens"], batch["prompt_length"])
    bits = batch["features"][:, :-1]
    return jax.lax.bitcast_convert_type(bits, jnp.bfloat16).astype(read.dtype)


def _own(batch):
    """Which of the predicted tokens the expert wrote, `[B, T - 1]`."""
    size = batch["tokens"].shape[1]
    return losses.token_weights(size, batch["first"], batch["length"], 0.0)


@partial(jax.jit, static_argnames=("model", "expert", "layout"))
def _measure(params, expert_params, batch, *, model, expert, layout):
    """Sums over a batch of what `evaluate` returns means of."""
    weights = _own(batch)
    with active.use(layout and layout.of("expert", model)):
        log_q = _log_q(model, params, batch)
    ids = params["head"].get("ids", jnp.arange(log_q.shape[-1]))

    def row(log_q, features, log_normaliser):  # row by row: the expert's logits are large
        log_p = expert.head_logits(expert_params, features) - log_normaliser[:, None]
        p = jnp.exp(log_p[:, ids])
        agree = ids[jnp.argmax(log_q, -1)] == jnp.argmax(log_p, -1)
        return jnp.minimum(jnp.exp(log_q), p).sum(-1), agree, p.sum(-1)

    features = _expert_features(batch, expert, expert_params)
    found = jax.lax.map(lambda x: row(*x), (log_q, features, batch["log_normaliser"][:, :-1]))
    names = ("acceptance", "greedy_agreement", "head_mass")
    sums = {k: jnp.sum(v * weights) for k, v in zip(names, found, strict=True)}
    return {**sums, "tokens": weights.sum()}
