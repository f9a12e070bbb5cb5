"""The encoder-decoder: with its cache against itself without, and what each part may see."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from speccascade import models
from speccascade.errors import UserError
from speccascade.training import losses
from tests import random_params
from tests.jitted import forward

VOCAB, BATCH, SLOTS, ANSWER, BLOCK = 23, 5, 9, 21, 4
BASE = {
    "family": "encoder_decoder",
    "vocab_size": VOCAB,
    "d_model": 16,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 3,
    "head_dim": 6,
    "d_ff": 20,
    "num_buckets": 8,
    "max_distance": 7,
    "decoder_start_id": 4,
}
CONFIGS = {
    "gated": {"num_decoder_layers": 2},
    "plain": {
        "num_layers": 2,
        "gated_mlp": False,
        "activation": "relu",
        "tie_embeddings": True,
        "norm_eps": 1e-2,
    },
    "bfloat16": {"dtype": "bfloat16"},
}
FLOAT32 = ["gated", "plain"]
LENGTHS = np.array([1, SLOTS, 3, 5, 2], np.int32)
ROWS = np.arange(BATCH)[:, None]
TOLERANCE = 3e-5

prefill = jax.jit(lambda model, *args: model.prefill(*args), static_argnums=0)
apply = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


@functools.cache
def build(name: str):
    """Returns a model and parameters in which nothing is 0 or 1."""
    model = models.build({**BASE, **CONFIGS[name]})
    return model, random_params.of(model)


@functools.cache
def texts() -> tuple[np.ndarray, np.ndarray]:
    """Returns right-padded prompts [B, SLOTS] and answers [B, ANSWER]."""
    rng = np.random.default_rng(3)
    prompts = rng.integers(0, VOCAB, (BATCH, SLOTS)).astype(np.int32)
    return prompts, rng.integers(0, VOCAB, (BATCH, ANSWER)).astype(np.int32)


def whole_texts(padding: int = 0) -> np.ndarray:
    """Returns prompts and answers as `forward` takes them, [B, SLOTS + ANSWER]."""
    whole = np.full((BATCH, SLOTS + ANSWER), padding, np.int32)
    for row, prompt, answer, length in zip(whole, *texts(), LENGTHS, strict=True):
        row[: length + ANSWER] = [*prompt[:length], *answer]
    return whole


def score(name: str) -> np.ndarray:
    """Returns the logits of the answers' tokens and of the one after, [B, ANSWER + 1, V]."""
    logits = np.asarray(forward(*build(name), whole_texts(), LENGTHS))
    return logits[ROWS, LENGTHS[:, None] - 1 + np.arange(ANSWER + 1)]


@pytest.mark.parametrize("name", FLOAT32)
def test_answers_alone_score_as_in_whole_texts(name):
    model, params = build(name)
    logits = jax.jit(model.answer_logits)(params, texts()[0], LENGTHS, texts()[1])
    assert logits.shape == (BATCH, ANSWER, VOCAB) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, score(name)[:, :-1], atol=TOLERANCE)


def walk(name: str, sizes: list[int], expected: np.ndarray, padding: int = 0) -> np.ndarray:
    """Writes the answers in ragged, partly wrong blocks; returns the errors of all logits.

    Args:
      name: which model.
      sizes: tokens per block, in turn.
      expected: from `score`.
      padding: what stands behind the prompts.
    """
    (model, params), rng = build(name), np.random.default_rng(2)
    prompts, answers = texts()
    prompts = np.where(np.arange(SLOTS) < LENGTHS[:, None], prompts, padding)
    start = np.full((BATCH, 1), BASE["decoder_start_id"], np.int32)
    tokens = np.concatenate([start, answers], axis=1)
    cache = model.init_cache(BATCH, SLOTS + ANSWER + max(sizes))
    cache, last, position = prefill(model, params, prompts, LENGTHS, cache)
    np.testing.assert_array_equal(last, tokens[:, 0])
    np.testing.assert_array_equal(position, 0)
    position, errors, step = np.array(position), [], 0
    while position.min() < ANSWER:
        size = sizes[step % len(sizes)]
        step += 1
        # The first `kept` tokens of each block are the text's, the others were drafted in vain.
        kept = rng.integers(1, size + 1, BATCH)
        at = position[:, None] + np.arange(size)
        wrong = (np.arange(size) >= kept[:, None]) | (at > ANSWER)
        own = tokens[ROWS, np.minimum(at, ANSWER)]
        block = np.where(wrong, rng.integers(0, VOCAB, at.shape), own)
        logits, cache = apply(model, params, block, at, cache)
        error = np.abs(np.asarray(logits) - expected[ROWS, np.minimum(at, ANSWER)])
        errors.append(error[~wrong])
        # On from the last right token, which is read again, or back to one before it.
        position = np.clip(position + kept - rng.integers(0, 2, BATCH), 0, ANSWER)
    return np.concatenate(errors)


@pytest.mark.parametrize("name", FLOAT32)
def test_a_cache_changes_nothing(name):
    expected = score(name)
    assert expected.std() > 0.2
    assert walk(name, [1, BLOCK], expected).max() < TOLERANCE


@pytest.mark.parametrize("chunk", [2, 4])  # of prompts of 9 tokens and texts of 30
def test_chunks_change_nothing(chunk):
    model, params = build("gated")
    model = dataclasses.replace(model, chunk=chunk)
    found = np.asarray(forward(model, params, whole_texts(), LENGTHS))
    found = found[ROWS, LENGTHS[:, None] - 1 + np.arange(ANSWER + 1)]
    np.testing.assert_allclose(found, score("gated"), atol=TOLERANCE)


@pytest.mark.parametrize("name", FLOAT32)
def test_padding_is_not_seen(name):
    expected = score(name)
    assert walk(name, [BLOCK], expected, padding=VOCAB - 1).max() < TOLERANCE
    again = np.asarray(forward(*build(name), whole_texts(padding=VOCAB - 1), LENGTHS))
    for row, length in enumerate(LENGTHS):
        own = slice(length - 1, length + ANSWER)
        np.testing.assert_allclose(again[row, own], expected[row], atol=TOLERANCE)


def test_bfloat16_is_close_to_float32():
    model, params = build("bfloat16")
    same = models.build({**models.describe(model), "dtype": "float32"})
    expected = np.asarray(forward(same, params, whole_texts(), LENGTHS))
    expected = expected[ROWS, LENGTHS[:, None] - 1 + np.arange(ANSWER + 1)]
    errors = walk("bfloat16", [BLOCK], expected) / expected.std()
    assert errors.mean() < 0.05 and errors.max() < 1


def test_one_row_is_cached_as_many_are():
    # A batch of one writes its cache in another way.
    (model, params), row = build("gated"), 1
    cache = model.init_cache(1, SLOTS + ANSWER)
    prompt, answer = (x[row : row + 1] for x in texts())
    cache = prefill(model, params, prompt, LENGTHS[row : row + 1], cache).cache
    start = np.full((1, 1), BASE["decoder_start_id"])
    for block in (slice(0, 3), slice(2, 5), slice(5, 6)):
        tokens = np.concatenate([start, answer], axis=1)[:, block]
        at = np.arange(ANSWER)[None, block]
        logits, cache = apply(model, params, tokens, at, cache)
        np.testing.assert_allclose(logits[0], score("gated")[row, block], atol=TOLERANCE)


def test_forward_has_no_logits_inside_the_prompt():
    logits = np.asarray(forward(*build("plain"), whole_texts(), LENGTHS))
    inside = np.arange(SLOTS + ANSWER) < LENGTHS[:, None] - 1
    assert not logits[inside].any() and logits[~inside].any(axis=-1).all()


def test_a_prompt_is_seen_whole_and_an_answer_only_backwards():
    whole = np.repeat(whole_texts()[1:2], BATCH, axis=0)  # the longest prompt
    first, last, place = 0, SLOTS - 1, SLOTS + 4
    for row, at in enumerate((first, last, place), 1):
        whole[row, at] = (whole[row, at] + 1) % VOCAB
    found = np.asarray(forward(*build("gated"), whole, np.full(BATCH, LENGTHS[1])))
    changed = np.abs(found - found[0]).max(-1) > 1e-6
    assert changed[1:3, SLOTS - 1 :].all()
    assert not changed[3, :place].any() and changed[3, place:].all()


def test_prefill_keeps_no_slots_for_the_prompt():
    model, params = build("gated")
    cache = jax.eval_shape(lambda: model.init_cache(BATCH, SLOTS + ANSWER))
    made = jax.eval_shape(model.prefill, params, texts()[0], LENGTHS, cache).cache
    assert {x.keys_BKLH.shape for x in made.layers} == {(BATCH, 3, ANSWER + 1, 6)}
    assert {x.values_BKLH.shape for x in made.cross} == {(BATCH, 3, SLOTS, 6)}
    assert len(made.layers) == len(made.cross) == model.config.num_decoder_layers


def test_training_learns_to_copy_the_prompts_first_token():
    model = models.build({**BASE, **CONFIGS["plain"]})
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, VOCAB, (64, 6)).astype(np.int32)
    prompt_length = rng.integers(1, 5, 64).astype(np.int32)
    length = prompt_length + 1
    tokens[np.arange(64), prompt_length] = tokens[:, 0]

    def loss(params):
        weights = losses.token_weights(6, prompt_length, length, 0.0)
        logits = model.forward(params, tokens, prompt_length)[:, :-1]
        nll = losses.cross_entropy(logits, tokens[:, 1:])
        return losses.mean_part(nll, weights, weights.sum())

    optimizer = optax.adam(5e-3)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, optimizer.init(params)), length=120)[1]

    values = np.asarray(train(jax.jit(model.init)(jax.random.key(0))))
    assert values[0] < 2 * np.log(VOCAB)  # fresh parameters are of the right size
    assert values[-1] < 0.3 * values[0]


def test_a_description_makes_the_same_model():
    model = models.build({**BASE, "param_dtype": "bfloat16", "dtype": "bfloat16"})
    text = json.dumps(models.describe(model))
    again = models.build(json.loads(text))
    assert again == model and hash(again) == hash(model)
    assert models.describe(model)["family"] == "encoder_decoder"
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kv_heads": 3}, "unknown fields num_kv_heads; known: vocab_size, "),
        ({"num_decoder_layers": None}, "model config lacks num_decoder_layers"),
        ({"num_decoder_layers": 0}, "num_decoder_layers=0 must be at least 1"),
        ({"activation": "relu6"}, "activation='relu6' is unknown; choose one of: silu, gelu"),
        ({"dtype": "float33"}, "dtype='float33' is unknown; choose one of: float32, bfloat16"),
        ({"num_buckets": 7}, "num_buckets=7 must be even and at least 4"),
        ({"num_buckets": 2}, "num_buckets=2 must be even and at least 4"),
        ({"max_distance": 4}, "max_distance=4 must be above 4, half of num_buckets"),
        ({"decoder_start_id": VOCAB}, "decoder_start_id=23 is outside the vocabulary of 23 tokens"),
    ],
)
def test_a_bad_description_is_one_clear_line(change, message):
    config = {key: value for key, value in {**BASE, **change}.items() if value is not None}
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        models.build(config)
    assert message in str(caught.value)
