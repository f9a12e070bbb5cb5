"""Behind `scripts/learn_rule.py`: trains the head of the rule `learned` on worked answers.

Both models read worked answers of the task, teacher-forced; at each token the labels are whether
the drafter's and whether the expert's best token is the reference's. A head trained on the examples
that it is later measured on would flatter itself, and one trained on what the models have by heart
believes them too much. So either the training split is read, or of the validation split those
examples that no evaluation reads.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from speccascade import learned_head, pairs, randomness, tasks
from speccascade.errors import UserError
from speccascade.inputs import paths, values
from speccascade.models.interface import Model, Params

LEAST = 20  # examples
_EXAMPLE = "configs/word_problems.py"
HELD_OUT = 5  # of so many examples one is held out
BATCH = 4  # logits of float32 [BATCH, T, V] are in memory four times
HIDDEN, STEPS, LEARNING_RATE, WEIGHT_DECAY = 16, 1000, 0.02, 1e-2


class Positions(NamedTuple):
    """What the models say at M tokens of answers, and what is right.

    Attributes:
      features: float32 [M, F], see `head.FEATURES`.
      right: bool [M, 2], whether the drafter's and the expert's best token is the reference's.
      example: int [M], which example a token is of.
    """

    features: np.ndarray
    right: np.ndarray
    example: np.ndarray

    def where(self, chosen: np.ndarray) -> "Positions":
        """Returns those that are chosen, bool [M]."""
        return Positions(*(column[chosen] for column in self))


class Quality(NamedTuple):
    """How well an estimate tells what is right.

    Attributes:
      log_loss: nats, the mean over both models.
      auc: the probability that the gain is larger at a token where only the expert is right than
        at any other; None where there are none of one kind.
    """

    log_loss: float
    auc: float | None


def learn(
    config: ml_collections.ConfigDict, out: str, num_examples: int, seed: int, unseen: bool = False
) -> str:
    """Trains a head and writes it to `out`.

    Args:
      config: its `task` has the examples, its `pair` the models.
      out: the file.
      num_examples: how many are read; a fifth of them is held out.
      seed: of the head's first weights.
      unseen: whether they are the last of the validation split, and not the first of the training
        split. None of them is one that the config's `evaluate.splits` measures.

    Returns:
      What came of it on the held-out examples, beside the plug-in estimate.

    Raises:
      UserError: something is not as it must be; most of it before the models are loaded.
    """
    num_examples = values.whole("--num_examples", num_examples, LEAST)
    seed = values.whole("--seed", seed)
    out = paths.on_disk(out, "a head")
    folder = os.path.dirname(out) or "."
    if os.path.isdir(out):
        raise UserError(f"--out={out} is a directory; give it the name of a file")
    needed = ("task", "pair", "evaluate") if unseen else ("task", "pair")
    values.section("", config, needed, _EXAMPLE)
    measured: Mapping[str, Any] = {}
    if unseen:
        evaluated = values.section("evaluate", config.evaluate, ["splits"], _EXAMPLE)
        measured = values.section("evaluate.splits", evaluated["splits"])
        for split, count in measured.items():
            values.whole(f"evaluate.splits.{split}", count, 1)
    task = tasks.make(config.task, pairs.chats(config.pair))
    if unseen:
        whole = task.examples("validation")
        split = "validation"
        first = max(len(whole) - num_examples, measured.get(split, 0))
        examples = whole[first:]
    else:
        split, first, examples = "train", 0, task.examples("train", num_examples)
    if len(examples) < LEAST:
        raise UserError(
            f"split {split} has {len(examples)} examples{' after those measured' * unseen}; a head "
            f"needs at least {LEAST}"
        )
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be written: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out={out} cannot be written; choose another place")
    pair = pairs.load(config.pair)
    found = read(pair, examples)
    held_out = found.example % HELD_OUT == HELD_OUT - 1
    head = train(found.where(~held_out), seed)
    kept = found.where(held_out)
    learned, plug_in = quality(learned_right(head, kept), kept), quality(plugin(kept), kept)
    notes = {
        "task": config.task.name,
        "pair": pair.hash,
        "split": split,
        "first": first,
        "examples": len(examples),
        "tokens": len(found.example),
        "seed": seed,
        "learned": learned._asdict(),
        "plug_in": plug_in._asdict(),
    }
    learned_head.save(head, out, notes)
    return _told(out, head, kept, learned, plug_in)


def _told(out, head, kept, learned, plug_in) -> str:
    drafter, expert = kept.right.T
    lines = [
        f"{out}: {learned_head.reference(out).rpartition('@')[2]}",
        f"{len(kept.example)} held-out tokens: the drafter is right on {drafter.mean():.3f} of "
        f"them, the expert on {expert.mean():.3f}; only the drafter on "
        f"{(drafter & ~expert).mean():.4f}, only the expert on {(expert & ~drafter).mean():.4f}",
    ]
    for name, own in (("learned", learned), ("plug-in", plug_in)):
        ranked = "not defined" if own.auc is None else f"{own.auc:.3f}"
        lines.append(f"{name}: log loss {own.log_loss:.4f}, AUC of the gain {ranked}")
    return "\n".join(lines)


# ---- positions ----


def read(pair: pairs.Pair, examples: Sequence[tasks.Example]) -> Positions:
    """Returns what a pair says at every token of the answers, the end included.

    What is beyond the pair's lengths is left out, and how often is said.
    """
    end = pair.tokenizer.eos_ids[0]
    answers = pair.encode_answers([e.answer for e in examples])
    answers = [[*answer, end] for answer in answers]
    fitted = pair.fit_prompts([e.prompt for e in examples], list(map(len, answers)))
    texts, short = [], 0
    for (prompt, cut), answer in zip(fitted, answers, strict=True):
        kept = answer[: pair.lengths.for_answer(len(prompt))]
        if pair.lengths.refusal(len(prompt)):  # nothing of it can be read
            prompt, kept = prompt[:1], []
        short += cut > 0 or len(kept) < len(answer)
        texts.append((prompt, prompt + kept))
    if short:
        print(
            f"{short} of {len(texts)} examples are cut to the pair's lengths",
            file=sys.stderr,
            flush=True,
        )
    longest = -(-max(len(text) for _, text in texts) // 16) * 16
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        tokens = np.zeros((BATCH, longest), np.int32)
        lengths = np.ones((BATCH, 2), np.int32)  # rows that only fill the batch have no answer
        for row, (prompt, text) in enumerate(batch):
            tokens[row, : len(text)] = text
            lengths[row] = min(len(prompt), len(text)), len(text)
        features, right = _forward(pair.drafter, pair.expert, pair.params, tokens, lengths[:, 0])
        index = np.arange(1, longest)  # of the token that is predicted
        counts = (index >= lengths[:, :1]) & (index < lengths[:, 1:])
        rows = np.broadcast_to(start + np.arange(BATCH)[:, None], counts.shape)
        parts.append((np.asarray(features)[counts], np.asarray(right)[counts], rows[counts]))
    return Positions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@partial(jax.jit, static_argnums=(0, 1))
def _forward(
    drafter: Model, expert: Model, params: dict[str, Params], tokens, prompt_length
) -> tuple[jax.Array, jax.Array]:
    """Returns features [B, T - 1, F] and who is right [B, T - 1, 2] about every next token."""
    q1, p1 = (
        jax.nn.softmax(model.forward(params[role], tokens, prompt_length)[:, :-1])
        for role, model in (("drafter", drafter), ("expert", expert))
    )
    right = jnp.stack([x.argmax(-1) == tokens[:, 1:] for x in (q1, p1)], axis=-1)
    return learned_head.features(q1, p1), right


# ---- estimates ----


def plugin(positions: Positions) -> np.ndarray:
    """Returns the plug-in's probabilities [M, 2] that each model is right: those of its best."""
    return positions.features[:, :2].astype(np.float64)


def learned_right(head: learned_head.Head, positions: Positions) -> np.ndarray:
    """Returns a head's probabilities [M, 2] that each model is right."""
    found = learned_head.logits(head, jnp.asarray(positions.features))
    return np.asarray(jax.nn.sigmoid(found), np.float64)


def quality(right: np.ndarray, positions: Positions) -> Quality:
    """Returns how well probabilities [M, 2] tell what is right."""
    p = np.clip(right, 1e-6, 1 - 1e-6)
    log_loss = -np.where(positions.right, np.log(p), np.log1p(-p)).mean()
    gain = right[:, 1] - right[:, 0]
    helps = positions.right[:, 1] & ~positions.right[:, 0]
    return Quality(float(log_loss), _auc(gain[helps], gain[~helps]))


def _auc(above: np.ndarray, below: np.ndarray) -> float | None:
    """Returns how often a value of `above` is larger than one of `below`, ties for half."""
    if not len(above) or not len(below):
        return None
    ordered = np.sort(below)
    wins = np.searchsorted(ordered, above, side="left") + np.searchsorted(
        ordered, above, side="right"
    )
    return float(wins.mean() / (2 * len(below)))


# ---- training ----


def train(positions: Positions, seed: int) -> learned_head.Head:
    """Fits a head by cross-entropy on all positions at once, by Adam with a decaying rate."""
    features = positions.features.astype(np.float32)
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-6, scale, 1.0).astype(np.float32)  # some never change
    key = randomness.key(seed)
    size = features.shape[1]
    weights = {
        "hidden_weight": jax.random.normal(key, (size, HIDDEN)) / size**0.5,
        "hidden_bias": jnp.zeros(HIDDEN),
        "output_weight": jnp.zeros((HIDDEN, 2)),
        "output_bias": jnp.zeros(2),
    }
    weights = _fit(weights, mean, scale, features, positions.right.astype(np.float32))
    columns = {"mean": mean, "scale": scale, **weights}
    frozen = {name: _frozen(np.asarray(x).tolist()) for name, x in columns.items()}
    return learned_head.Head(**frozen)


@jax.jit
def _fit(weights, mean, scale, features, right):
    optimizer = optax.adamw(
        optax.cosine_decay_schedule(LEARNING_RATE, STEPS), b2=0.99, weight_decay=WEIGHT_DECAY
    )

    def loss(weights):
        found = learned_head.logits(_Weights(mean, scale, **weights), features)
        return optax.sigmoid_binary_cross_entropy(found, right).mean()

    def step(carry, _):
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights), state, weights)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), length=STEPS)
    return weights


class _Weights(NamedTuple):
    """A head's numbers as arrays."""

    mean: jax.Array
    scale: jax.Array
    hidden_weight: jax.Array
    hidden_bias: jax.Array
    output_weight: jax.Array
    output_bias: jax.Array


def _frozen(value):
    return tuple(map(_frozen, value)) if isinstance(value, list) else float(f"{value:.6g}")
