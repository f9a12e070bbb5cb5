"""A vocabulary as real models have one, 32,768 token ids, decoded end to end."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models as tokenizer_models
from tokenizers import pre_tokenizers

from speccascade import generate_text, models, pairs
from speccascade.text.byte_bpe import EOS, PAD, ByteBPE
from tests import random_params, smallest_model
from tests.inference import whole_texts

VOCAB = 32_768
PROMPTS = ["How many pens?", "1 + 1 =", "x", "It costs 7 a day"]
ROOM = 12


def tokenizer() -> ByteBPE:
    """Returns one whose tokens are the bytes and pairs of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in alphabet for b in alphabet][: VOCAB - 2 - len(alphabet)]
    tokens = [PAD, EOS, *alphabet, *(a + b for a, b in merges)]
    vocab = {token: index for index, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(tokenizer_models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return ByteBPE(inner)


@pytest.fixture(scope="module")
def pair() -> pairs.Pair:
    """An expert, and a drafter that is it with some noise."""
    model = models.build({**smallest_model.MODEL, "vocab_size": VOCAB, "tie_embeddings": False})
    expert = random_params.of(model, scale=4.0)
    params = {"drafter": random_params.near(expert, 0.1), "expert": expert}
    both = dict.fromkeys(pairs.ROLES, model)
    return pairs.Pair("large", both, params, tokenizer(), context_length=None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_lossless_text_is_the_experts_best(pair, temperature):
    """Of an expert whose one best token is left, sampled drafts are kept or replaced by that."""
    how = {"rule": "spec", "draft_length": 3, "temperature": temperature, "expert_top_k": 1}
    answers = generate_text(pair, PROMPTS, max_new_tokens=ROOM, **how)
    found = [answer.tokens for answer in answers]
    prompts = pair.encode_prompts(PROMPTS)
    scores = whole_texts.logits(pair.expert, pair.params["expert"], prompts, found)
    assert min(whole_texts.margins(own).min() for own in scores) > 1e-4
    assert [own.argmax(-1).tolist() for own in scores] == found
    ids = np.concatenate(found)
    assert ids.max() > VOCAB // 2 and len(set(ids.tolist())) > len(PROMPTS)
    rates = [answer.statistics["tokens_per_expert_call"] for answer in answers]
    assert 1 < np.mean(rates) < 4  # some drafts were kept, some were not
