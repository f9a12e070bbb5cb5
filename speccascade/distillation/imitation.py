"""How far a drafter is from its expert on texts: what is minimised, and the figures."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.distillation.texts import Texts
from speccascade.importing import Loaded
from speccascade.models import costs
from speccascade.models.interface import Model, Params
from speccascade.models.shrink import SHARED
from speccascade.sharding import Layout, active
from speccascade.training import losses
from speccascade.training.step import Work


@dataclasses.dataclass(frozen=True)
class Imitation:
    """How far a drafter is from its expert on what one of them wrote; see `step.Objective`.

    Attributes:
      model: the drafter.
      teacher: the expert, whose parameters, embedding and the head's ids are the fixed ones.
      distance: a name in `losses.DISTILLATION`.
    """

    model: Model
    teacher: Model
    distance: str

    def work(self, batch):
        """Returns what a step on a batch has to do: the drafter's part, and the expert's head."""
        prompt, length = batch["prompt_length"], batch["length"]
        drafted = 3 * costs.scoring(self.model, prompt, length - prompt, length)
        tokens = int(np.sum(length))
        rows = self.model.config.head_size or self.teacher.vocab_size
        return Work(tokens, drafted + 2 * rows * self.teacher.config.d_model * tokens)

    def totals(self, batch):
        """Returns how many tokens of a batch are learnt."""
        return jnp.sum(_own(batch))

    def __call__(self, params, batch, totals, fixed, key):
        """Returns what a batch adds to the mean distance."""
        del key
        features = _expert_features(batch, self.teacher, fixed["expert"])
        with active.use_for(self.teacher):
            logits = self.teacher.head_logits(fixed["expert"], features, fixed["ids"])
        log_p = logits - batch["log_normaliser"][:, :-1, None]
        log_q = _log_q(self.model, {**params, SHARED: fixed["embedding"]}, batch)
        distance = losses.distillation(self.distance)(log_q, log_p)
        loss = losses.mean_part(distance, _own(batch), totals)
        return loss, {"loss": loss}


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
    """Which of the predicted tokens are learnt, `[B, T - 1]`."""
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
