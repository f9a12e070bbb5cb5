"""A pair in bfloat16 from its files to its texts: lossless decoding, and a cascade's choices."""

import dataclasses

import jax
import numpy as np
import pytest

from speccascade import generate_text, models, pairs
from tests import random_params, tiny_pair
from tests.inference import whole_texts

PROMPTS = ["How many?", "Ann has 12 pens.", "1 + 1 =", "x", "It costs 7 a day", "and", "?", "##"]
HOW = {"draft_length": 3, "temperature": 0.0, "max_new_tokens": 16}
ALPHA = 0.7
SEED, SCALE, NOISE = 0, 1.5, 0.3


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """An expert, and a drafter that is it with some noise."""
    folder, pair = str(tmp_path_factory.mktemp("pair")), tiny_pair.make()
    expert = random_params.of(pair.expert, SEED, SCALE)
    close = {
        "models": dict.fromkeys(pairs.ROLES, pair.expert),
        "params": {"drafter": random_params.near(expert, NOISE), "expert": expert},
    }
    pairs.export(dataclasses.replace(pair, **close), folder, {})
    sources = {role: f"{folder}/{role}" for role in pairs.ROLES}
    return pairs.load({**sources, "dtype": "bfloat16", "context_length": 300})


@pytest.fixture(scope="module")
def expected(pair):
    """Returns the expert's own answers."""
    how = {"method": "autoregressive_expert", "temperature": 0.0}
    return generate_text(pair, PROMPTS, max_new_tokens=16, **how)


def test_models_compute_in_bfloat16(pair):
    for role, model in pair.models.items():
        matrices = [x for x in jax.tree.leaves(pair.params[role]) if x.ndim == 2]
        assert {str(x.dtype) for x in matrices} == {"bfloat16"}
        assert models.describe(model)["dtype"] == "bfloat16"


def test_lossless_text_is_the_experts_own(pair, expected):
    found = generate_text(pair, PROMPTS, rule="spec", **HOW)
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
    calls = sum(answer.statistics["expert_calls"] for answer in found)
    assert calls < sum(len(answer.tokens) for answer in found)  # drafts were kept


def test_a_cascade_takes_the_drafters_token_where_the_expert_likes_it(pair, expected):
    """`token_v3`: where its probability is within a factor of the largest."""
    found = [a.tokens for a in generate_text(pair, PROMPTS, rule="token_v3", alpha=ALPHA, **HOW)]
    assert found != [answer.tokens for answer in expected]
    prompts = pair.encode_prompts(PROMPTS)
    drafter, expert = (
        whole_texts.logits(pair.models[role], pair.params[role], prompts, found)
        for role in pairs.ROLES
    )
    own = close = 0
    for tokens, q, p in zip(found, drafter, expert, strict=True):
        drafted, best = q.argmax(-1), p.argmax(-1)
        lead = p.max(-1) - p[np.arange(len(p)), drafted]  # in logarithms
        keeps = lead <= -np.log(1 - ALPHA)
        # Blocks round otherwise than whole texts: nothing is said where that decides.
        sure = np.abs(lead + np.log(1 - ALPHA)) > 0.05
        sure &= (whole_texts.margins(q) > 0.05) & (keeps | (whole_texts.margins(p) > 0.05))
        wanted = np.where(keeps, drafted, best)
        np.testing.assert_array_equal(np.array(tokens)[sure], wanted[sure])
        own += np.sum(sure & keeps & (drafted != best))
        close += np.sum(~sure)
    assert own > 3 and close < sum(map(len, found)) / 3
