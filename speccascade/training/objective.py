"""What training on worked answers minimises, and the figures that it is measured by."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from speccascade.models import costs
from speccascade.models.interface import Dropout, Model, Params
from speccascade.sharding import Layout, active
from speccascade.training import data, losses, step
from speccascade.training.adapters import Adapters

Batch = dict[str, jax.Array]


class Fixed(NamedTuple):
    """Parameters that a training reads and does not change.

    Attributes:
      teacher: of the teacher, None for none.
      weights: those that adapters are beside, None where there are no adapters.
    """

    teacher: Params = None
    weights: Params = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of worked answers, and of prompts where they count; see `step.Objective`.

    Attributes:
      model: what is trained.
      known: token ids that the tokenizer has. What a model has beyond is padding, which gets no
        probability.
      prompt_weight: of predicting a prompt's token, beside 1 for an answer's; with 0 answers are
        read alone.
      dropout: the probability that a unit is left out, of an encoder-decoder.
      teacher: whose distributions the answers' are compared with, None for none.
      distance: how, a name in `losses.DISTILLATION`.
      distill_weight: the share of that distance in the loss; the rest is that of the tokens.
      adapters: what is trained beside the model's weights, which stay as they are; None for the
        weights themselves.
    """

    model: Model
    known: int
    prompt_weight: float = 0.0
    dropout: float = 0.0
    teacher: Model | None = None
    distance: str = ""
    distill_weight: float = 0.0
    adapters: Adapters | None = None

    def batch(
        self, problems: data.Problems, rows: np.ndarray, needed: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Returns some problems as the loss takes them: whole texts, or prompts and answers.

        Args:
          problems: the problems.
          rows: [B], which of them.
          needed: bool [B], those of which the tokens are read; None for all.
        """
        made = problems.batch if self.prompt_weight else problems.answers
        return made(rows, needed)

    def work(self, batch: dict[str, np.ndarray]) -> step.Work:
        """Returns what a step on a batch has to do; see `step.Objective`."""
        prompt = batch["prompt_length"]
        answer = batch["length"] - prompt if self.prompt_weight else batch["answer_length"]
        texts = prompt, answer, prompt + answer if self.prompt_weight else answer
        passes = 3 if self.adapters is None else 2  # frozen weights have no gradients
        ops = passes * costs.scoring(self.model, *texts)
        if self.teacher is not None:
            ops += costs.scoring(self.teacher, *texts)
        return step.Work(int(np.sum(prompt + answer)), ops)

    def totals(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the sums of weights over a batch, by which its losses are divided."""
        return {name: jnp.sum(weights) for name, weights in self._weights(batch).items()}

    def __call__(
        self, params: Params, batch: Batch, totals: Any, fixed: Fixed, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns what a batch adds to the mean loss over `totals`, and what is logged of it."""
        params = self.whole(params, fixed)
        thinned = {"dropout": Dropout(key, self.dropout)} if self.dropout else {}
        logits, targets = self._scores(self.model, params, batch, **thinned)
        weights = self._weights(batch)

        def mean(values, name):
            return losses.mean_part(values, weights[name], totals[name])

        nll = losses.cross_entropy(logits, targets)
        loss = mean(nll, "all")
        logged = {"answer_nll": mean(nll, "answer")}
        if self.teacher is not None:
            with active.use_for(self.teacher):
                taught, _ = self._scores(self.teacher, fixed.teacher, batch)
            width = min(logits.shape[-1], taught.shape[-1])  # what either has beyond is padding
            distance = losses.distillation(self.distance)(
                jax.nn.log_softmax(logits)[..., :width], jax.nn.log_softmax(taught)[..., :width]
            )
            logged["distill"] = mean(distance, "answer")
            loss = (1 - self.distill_weight) * loss + self.distill_weight * logged["distill"]
        return loss, {"loss": loss, **logged}

    def whole(self, params: Params, fixed: Fixed) -> Params:
        """Returns the model's parameters, of which `params` is what is trained."""
        return params if self.adapters is None else self.adapters.beside(fixed.weights, params)

    def _weights(self, batch: Batch) -> dict[str, jax.Array]:
        if not self.prompt_weight:
            inside = _inside(batch)
            return {"all": inside, "answer": inside}
        size = batch["tokens"].shape[1]
        weigh = partial(losses.token_weights, size, batch["prompt_length"], batch["length"])
        return {"all": weigh(self.prompt_weight), "answer": weigh(0.0)}

    def _scores(self, model: Model, params: Params, batch: Batch, **thinned):
        """Returns logits and the tokens that they predict."""
        if self.prompt_weight:
            tokens = batch["tokens"]
            logits = model.forward(params, tokens, batch["prompt_length"])[:, :-1]
            return losses.of_known(logits, self.known), tokens[:, 1:]
        given = batch["prompt"], batch["prompt_length"], batch["answer"]
        logits = model.answer_logits(params, *given, **thinned)
        return losses.of_known(logits, self.known), batch["answer"]


def _inside(batch: Batch) -> jax.Array:
    """1 for an answer's tokens and its EOS, 0 for padding: [B, A] float32."""
    index = jnp.arange(batch["answer"].shape[1])
    return (index < batch["answer_length"][:, None]).astype(jnp.float32)


def evaluate(
    model: Model,
    params: Params,
    problems: data.Problems,
    batch_size: int,
    known: int | None = None,
    layout: Layout | None = None,
) -> dict[str, float]:
    """Teacher-forced figures on held-out problems.

    `whole_answer` is the share of answers whose every token is the argmax given the true ones
    before it. Greedy decoding writes exactly those answers, so it bounds exact match from below.

    Args:
      model: what is measured.
      params: its parameters.
      problems: the problems.
      batch_size: of them at a time.
      known: token ids that the tokenizer has; None for all that the model has.
      layout: how the parameters lie on a mesh; None for one device.
    """
    totals: dict[str, float] = {}
    needed = step.needed(batch_size, layout)
    order = np.argsort(problems.length, kind="stable")
    for start in range(0, len(problems), batch_size):
        rows = np.arange(start, start + batch_size)
        batch = problems.answers(order[np.minimum(rows, len(problems) - 1)], needed)
        batch["answer_length"] *= rows < len(problems)  # a row of length 0 counts nowhere
        batch = step.put(batch, layout)
        sums = _measure(params, batch, model=model, known=known or model.vocab_size, layout=layout)
        totals = {k: totals.get(k, 0.0) + float(v) for k, v in sums.items()}
    return {
        "validation_nll": totals["nll"] / totals["tokens"],
        "validation_token_accuracy": totals["right"] / totals["tokens"],
        "validation_whole_answer": totals["whole"] / len(problems),
    }


@partial(jax.jit, static_argnames=("model", "known", "layout"))
def _measure(params, batch, *, model, known, layout):
    """Sums over a batch: answer tokens, their loss, those that are argmax, answers that all are."""
    given = batch["prompt"], batch["prompt_length"], batch["answer"]
    with active.use(layout and layout.of("expert", model)):
        logits = losses.of_known(model.answer_logits(params, *given), known)
    weights = _inside(batch)
    right = jnp.argmax(logits, -1) == batch["answer"]
    return {
        "tokens": jnp.sum(weights),
        "nll": jnp.sum(losses.cross_entropy(logits, batch["answer"]) * weights),
        "right": jnp.sum(right * weights),
        "whole": jnp.sum(jnp.all(right | (weights == 0), axis=1) & (batch["answer_length"] > 0)),
    }
