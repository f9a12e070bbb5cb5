"""Prompts of more than two thousand tokens: read in chunks, through rings and whole caches."""

import numpy as np
import pytest

from speccascade import generate_text, models, pairs, text
from speccascade.models.attention import CHUNK
from tests import random_params
from tests.inference import whole_texts

LENGTHS = (2_060, 700, 3)
ROOM = 12


@pytest.fixture(scope="module")
def pair() -> pairs.Pair:
    tokenizer = text.train(["a tiny text"], 258)
    built, params = {}, {}
    for i, role in enumerate(pairs.ROLES):
        built[role] = models.build(
            {
                "vocab_size": tokenizer.vocab_size,
                "d_model": 16,
                "num_layers": 2,
                "num_heads": 2,
                "num_kv_heads": 1,
                "head_dim": 8,
                "d_ff": 16,
                "window": 40,
                "window_pattern": (True, False),
            }
        )
        params[role] = random_params.of(built[role], seed=i, scale=3.0)
    return pairs.Pair("long", built, params, tokenizer, context_length=None)


def test_greedy_text_behind_a_long_prompt_is_the_experts_best(pair):
    letters = np.random.default_rng(0).integers(97, 123, max(LENGTHS)).astype(np.uint8).tobytes()
    texts = [letters[:length].decode() for length in LENGTHS]
    prompts = pair.encode_prompts(texts)
    assert tuple(map(len, prompts)) == LENGTHS and max(LENGTHS) > 4 * CHUNK
    answers = generate_text(
        pair, texts, rule="spec", draft_length=3, temperature=0.0, max_new_tokens=ROOM
    )
    found = [answer.tokens for answer in answers]
    expert, params = pair.expert, pair.params["expert"]
    scores = whole_texts.logits(expert, params, prompts, found)
    assert min(whole_texts.margins(own).min() for own in scores) > 1e-4
    assert [own.argmax(-1).tolist() for own in scores] == found
    # What stands in the first chunk is seen.
    prompts[0][:100] = reversed(prompts[0][:100])
    other = whole_texts.logits(expert, params, prompts, found)
    assert np.abs(other[0] - scores[0]).max() > 1e-2
