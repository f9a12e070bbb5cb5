"""T5 at the lengths that it is used at: 512 tokens in, answers longer than its buckets reach."""

import dataclasses

import numpy as np
import pytest

from speccascade import generate_text, models, pairs, text
from tests import random_params
from tests.inference import whole_texts

LENGTHS = (512, 300, 40)
SEED, SCALE = 2, 1.5  # of parameters whose answers neither end nor repeat one token
ROOM = 150  # more than `max_distance`: farther distances share the last bucket


@pytest.fixture(scope="module")
def pair() -> pairs.Pair:
    """An expert, and a drafter that is it with some noise."""
    tokenizer = text.train(["a tiny text"], 258)
    model = models.build(
        {
            "family": "encoder_decoder",
            "vocab_size": tokenizer.vocab_size,
            "d_model": 16,
            "num_layers": 1,
            "num_decoder_layers": 1,
            "num_heads": 2,
            "head_dim": 8,
            "d_ff": 16,
        }
    )
    assert (model.config.num_buckets, model.config.max_distance) == (32, 128)
    expert = random_params.of(model, SEED, SCALE)
    params = {"drafter": random_params.near(expert, 0.1), "expert": expert}
    return pairs.Pair(
        "t5", dict.fromkeys(pairs.ROLES, model), params, tokenizer, context_length=None
    )


def test_greedy_answers_to_long_inputs_are_the_experts_best(pair):
    letters = np.random.default_rng(0).integers(97, 123, max(LENGTHS)).astype(np.uint8).tobytes()
    texts = [letters[:length].decode() for length in LENGTHS]
    prompts = pair.encode_prompts(texts)
    assert tuple(map(len, prompts)) == LENGTHS
    answers = generate_text(
        pair, texts, rule="spec", draft_length=4, temperature=0.0, max_new_tokens=ROOM
    )
    found = [answer.tokens for answer in answers]
    assert min(map(len, found)) == ROOM > 128 and max(len(set(own)) for own in found) > 30
    assert max(answer.statistics["tokens_per_expert_call"] for answer in answers) > 2
    expert, params = pair.expert, pair.params["expert"]
    scores = whole_texts.logits(expert, params, prompts, found)
    assert min(whole_texts.margins(own).min() for own in scores) > 1e-4
    assert [own.argmax(-1).tolist() for own in scores] == found
    # The last bucket counts: without it, distances from about 113 on look nearer.
    shorter = dataclasses.replace(expert.config, max_distance=100)
    other = whole_texts.logits(dataclasses.replace(expert, config=shorter), params, prompts, found)
    assert max(np.abs(a - b)[128:].max() for a, b in zip(other, scores, strict=True)) > 1e-2
