"""What rounding weights to int8 does to a model's logits, on the worked answers of a task.

Beside it stands what bfloat16 does to them against float32: rounding that everybody takes for none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from speccascade import importing, models, pairs, tasks
from speccascade.benchmark import table
from speccascade.errors import UserError
from speccascade.inputs import values
from speccascade.models.interface import Model, Params
from speccascade.models.quantisation import is_int8, quantise
from speccascade.pairs.lengths import Lengths
from speccascade.text.prompt import fit

BATCH = 4  # logits of float32 [BATCH, T, V] are in memory three times

_COLUMNS = ("model", "compared", "bytes", "mean KL", "same argmax", "loss", "loss of the other")


class Subject(NamedTuple):
    """A model with texts.

    Attributes:
      name: for people.
      model: its description.
      params: its parameters.
      texts: prompt and answer of each example, as token ids.
    """

    name: str
    model: Model
    params: Params
    texts: Sequence[tuple[list[int], list[int]]]


class Difference(NamedTuple):
    """How far a model's logits are from those of another, averaged over the answers' tokens.

    Attributes:
      tokens: of all answers.
      kl: the divergence KL(reference || model), nats.
      agreement: how often both find the same token most likely.
      loss: the model's own, nats per token.
      reference_loss: that of the other.
    """

    tokens: int
    kl: float
    agreement: float
    loss: float
    reference_loss: float


def run(
    config: ml_collections.ConfigDict,
    source: str | None,
    num_examples: int,
    show: Callable[[str], None],
) -> None:
    """Shows a table of both models of a pair, or of one model.

    Args:
      config: its `task` has the texts, its `pair` the models.
      source: a model in the pair's place, as `importing.load` takes it; None for the pair.
      num_examples: the first so many of the validation split.
      show: takes the lines.

    Raises:
      UserError: something is not as it must be.
    """
    num_examples = values.whole("--num_examples", num_examples, 1)
    chat = source is None and pairs.chats(config.pair)
    examples = tasks.make(config.task, chat).examples("validation", num_examples)
    rows = [row for subject in _subjects(config, source, examples) for row in _rows(subject)]
    show(table.markdown(_COLUMNS, rows))


def _subjects(
    config: ml_collections.ConfigDict, source: str | None, examples: Sequence[tasks.Example]
) -> list[Subject]:
    if source is not None:
        found = importing.load(source, "float32")  # the finer of the two that are compared
        rows, tokenizer, chat = {source: found[:2]}, found.tokenizer, False
        lengths = Lengths.of(found.model, found.context_length)
    else:
        pair = pairs.load(config.pair)
        rows = {role: (pair.models[role], pair.params[role]) for role in pairs.ROLES}
        tokenizer, chat, lengths = pair.tokenizer, pair.chat, pair.lengths
    if named := [name for name, (model, _) in rows.items() if is_int8(model)]:
        raise UserError(f"{named[0]} is rounded already; give it as it was")
    begin = any(models.answers_begin(model) for model, _ in rows.values())
    answers = tokenizer.encode_answers([e.answer for e in examples], begin)
    fitted = fit(
        partial(tokenizer.encode_prompts, chat=chat),
        [e.prompt for e in examples],
        [lengths.for_prompt(len(answer)) for answer in answers],
    )
    texts = [(prompt.ids, answer) for prompt, answer in zip(fitted, answers, strict=True)]
    return [Subject(name, *row, texts) for name, row in rows.items()]


def _rows(subject: Subject) -> list[list[str]]:
    found = {dtype: _in(dtype, subject) for dtype in ("float32", "bfloat16")}
    found["int8"] = quantise(*found["bfloat16"])
    rows = []
    for name, reference in (("bfloat16", "float32"), ("int8", "bfloat16")):
        d = compare(found[name], found[reference], subject.texts)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(found[name][1]))
        figures = f"{d.kl:.2g}", f"{d.agreement:.4f}", f"{d.loss:.4f}", f"{d.reference_loss:.4f}"
        rows.append([subject.name, f"{name} against {reference}", f"{size:,}", *figures])
    return rows


def _in(dtype: str, subject: Subject) -> tuple[Model, Params]:
    """Returns the model computing in a dtype, of parameters in that dtype."""
    description = {**models.describe(subject.model), "dtype": dtype, "param_dtype": dtype}
    model = models.build(description)
    wanted = models.shapes(model)
    return model, jax.tree.map(lambda x, like: x.astype(like.dtype), subject.params, wanted)


def compare(
    model: tuple[Model, Params],
    reference: tuple[Model, Params],
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> Difference:
    """Compares two models over one vocabulary on texts.

    Args:
      model: with its parameters.
      reference: likewise.
      texts: token ids of prompt and answer, each with at least one token. Answers count.
    """
    sums = np.zeros(5)
    longest = -(-max(len(prompt) + len(answer) for prompt, answer in texts) // 16) * 16
    for start in range(0, len(texts), BATCH):
        batch = [texts[min(start + i, len(texts) - 1)] for i in range(BATCH)]
        tokens = np.zeros((BATCH, longest), np.int32)
        lengths = np.array([[len(prompt), len(answer)] for prompt, answer in batch], np.int32)
        lengths[len(texts) - start :, 1] = 0  # rows that only fill the batch
        for row, (prompt, answer) in zip(tokens, batch, strict=True):
            row[: len(prompt) + len(answer)] = [*prompt, *answer]
        sums += np.asarray(_sums(model[0], reference[0], model[1], reference[1], tokens, lengths))
    count, *totals = sums
    return Difference(int(count), *(total / count for total in totals))


@partial(jax.jit, static_argnums=(0, 1))
def _sums(model, reference, params, reference_params, tokens, lengths) -> jax.Array:
    """Returns sums over the answers' tokens: how many, KL, same argmax, both losses."""
    prompt, answer = lengths.T
    found, expected = (
        jax.nn.log_softmax(m.forward(p, tokens, prompt)[:, :-1])
        for m, p in ((model, params), (reference, reference_params))
    )
    index = jnp.arange(1, tokens.shape[1])  # of the token that is predicted
    counts = (index >= prompt[:, None]) & (index < (prompt + answer)[:, None])
    divergence = jnp.exp(expected) * (expected - found)
    following = tokens[:, 1:, None]
    each = (
        jnp.ones(counts.shape),
        jnp.sum(jnp.where(jnp.isneginf(expected), 0.0, divergence), axis=-1),
        found.argmax(-1) == expected.argmax(-1),
        -jnp.take_along_axis(found, following, axis=-1)[..., 0],
        -jnp.take_along_axis(expected, following, axis=-1)[..., 0],
    )
    return jnp.stack([jnp.sum(jnp.where(counts, x, 0.0)) for x in each])
