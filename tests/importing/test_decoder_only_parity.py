"""Imported decoder-only models against the reference implementation, feature by feature."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from speccascade import decode, importing, models
from speccascade.importing.architectures import decoder_only, routed
from tests.importing import decoder_only_families as families
from tests.importing import planned
from tests.importing.decoder_only_families import LENGTH, VOCAB

FAMILIES = list(families.FAMILIES)
TOLERANCE = 2e-4
VISIBLE = 10 * TOLERANCE  # the two forms of gelu differ by little more
BLOCK, SLOTS = 5, 11
PROMPTS = np.array([3, SLOTS, 7], np.int32)  # one shorter than the windows, two longer
BATCH = len(PROMPTS)

prefill = jax.jit(lambda model, *args: model.prefill(*args), static_argnums=0)
apply = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


def score(model, params, tokens):
    return model.forward(params, tokens, jnp.ones(len(tokens), jnp.int32))


forward = jax.jit(score, static_argnums=0)


@functools.cache
def golden(family):
    configs, logits = families.golden()
    return configs[family], logits[family]


# With the reference, where torch and transformers are installed.


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """The reference's model, and ours, imported from what the reference saved."""
    reason = "the parity tests need torch and transformers (requirements-peers.txt)"
    pytest.importorskip("torch", reason=reason)
    pytest.importorskip("transformers", reason=reason)
    from tests.importing import make_golden

    reference = make_golden.reference(request.param)
    path = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(path)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[: VOCAB - 1]
    words = {word: i for i, word in enumerate([*letters, "<end>"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    model, params, _ = importing.load_model(str(path), dtype="float32")
    return reference, model, params


@functools.cache
def reference_logits(reference):
    from tests.importing import make_golden

    return make_golden.logits(reference, families.tokens(BATCH))


def read_prompts(model, params):
    """Reads a ragged batch of prompts, in chunks; the padding is another token's."""
    model = dataclasses.replace(model, chunk=4)
    tokens = families.tokens(BATCH)[:, :SLOTS]
    prompt = np.where(np.arange(SLOTS) < PROMPTS[:, None], tokens, VOCAB - 1)
    return prefill(model, params, prompt, PROMPTS, model.init_cache(BATCH, LENGTH + BLOCK, BLOCK))


def test_whole_texts_score_as_in_the_reference(pair):
    reference, model, params = pair
    expected = reference_logits(reference)
    assert expected.std() > 1
    found = forward(model, params, families.tokens(BATCH))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_single_tokens_score_as_in_the_reference(pair):
    # The reference goes on from its own cache, row by row; a ragged batch goes on from ours.
    import torch

    reference, model, params = pair
    tokens = families.tokens(BATCH)
    cache, last, position = read_prompts(model, params)
    np.testing.assert_array_equal(last, tokens[np.arange(BATCH), PROMPTS - 1])
    steps = LENGTH - SLOTS
    found = []
    for step in range(steps):
        at = np.asarray(position)[:, None] + step
        logits, cache = apply(model, params, np.take_along_axis(tokens, at, 1), at, cache)
        found.append(logits[:, 0])
    found = np.stack(found, axis=1)
    for row, length in enumerate(PROMPTS):
        with torch.no_grad():
            text = torch.from_numpy(tokens[row : row + 1]).long()
            read = reference(text[:, : length - 1], use_cache=True)
            for step in range(steps):
                new = text[:, length - 1 + step : length + step]
                read = reference(new, past_key_values=read.past_key_values, use_cache=True)
                expected = read.logits[0, -1].numpy()
                np.testing.assert_allclose(found[row, step], expected, atol=TOLERANCE)


def test_ragged_blocks_score_as_in_the_reference(pair):
    reference, model, params = pair
    tokens, expected = families.tokens(BATCH), reference_logits(reference)
    rng = np.random.default_rng(0)
    cache, _, position = read_prompts(model, params)
    position, rows = np.array(position), np.arange(BATCH)[:, None]
    scored = 0
    while position.min() < LENGTH - 1:
        kept = rng.integers(1, BLOCK + 1, BATCH)  # the rest of a block was drafted in vain
        at = position[:, None] + np.arange(BLOCK)
        right = (np.arange(BLOCK) < kept[:, None]) & (at < LENGTH)
        at_text = np.minimum(at, LENGTH - 1)
        block = np.where(right, tokens[rows, at_text], rng.integers(0, VOCAB, at.shape))
        logits, cache = apply(model, params, block.astype(np.int32), at, cache)
        wanted = expected[rows, at_text][right]
        np.testing.assert_allclose(np.asarray(logits)[right], wanted, atol=TOLERANCE)
        scored += right.sum()
        position = np.minimum(position + kept, LENGTH - 1)
    assert scored >= 30


def test_greedy_text_is_the_references(pair):
    import torch

    reference, model, params = pair
    prompts = [row[:n].tolist() for row, n in zip(families.tokens(BATCH), PROMPTS, strict=True)]
    rows = decode.make_rows(
        prompts,
        stop_table=decode.stop_table(VOCAB, ()),
        max_new_tokens=64,
        prompt_slots=SLOTS,
    )
    found = decode.autoregressive(model, params, rows, 64)
    np.testing.assert_array_equal(found.num_tokens, [64] * BATCH)
    for prompt, text in zip(prompts, np.asarray(found.tokens), strict=True):
        given = torch.tensor([prompt])
        mask = torch.ones_like(given)
        options = {"do_sample": False, "max_new_tokens": 64, "attention_mask": mask}
        expected = reference.generate(given, **options)[0, len(prompt) :].numpy()
        np.testing.assert_array_equal(text[:64], expected)
    assert len(np.unique(found.tokens)) >= 8  # not one token over and over


# With stored logits, everywhere.


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_texts_score_as_in_the_golden_logits(family):
    config, expected = golden(family)
    model, params = planned.imported(config, families.tensor)
    found = score(model, params, families.tokens(1))[0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    cache, half = model.init_cache(1, LENGTH), LENGTH // 2
    for start in (0, half, half - 5, half):
        at = np.arange(start, start + half)[None]
        text = families.tokens(1)[:, start : start + half]
        found, cache = apply(model, params, text, at, cache)
        np.testing.assert_allclose(found[0], expected[start : start + half], atol=TOLERANCE)


def routed_otherwise(family, **changes):
    routing = planned.plan(golden(family)[0]).description["routing"]
    return {"routing": {**routing, **changes}}


YARN = {
    "kind": "yarn",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 32.0,
    "original_positions": 64,
}
# What a feature left out or mistaken looks like, family by family. Computed without jit: compiling
# each would take longer than all of it.
MUTANTS = {
    "llama2": [{"norm_eps": 1e-6}, {"activation": "gelu"}, {"rope_base": 9_000.0}],
    "llama3": [
        {"rope_scaling": None},
        {"rope_scaling": {"kind": "linear", "factor": 8.0}},
        {"activation": "silu"},
    ],
    "smollm2": [{"rope_base": 10_000.0}, {"scale_embeddings": True}],
    "mistral": [{"window": None}, {"window": 6}, {"window_pattern": (True, False)}],
    "mistral_v3": [
        {"rope_scaling": None},
        {"rope_scaling": {"kind": "linear", "factor": 4.0}},
        {"rope_scaling": {**YARN, "low_freq_factor": 0.5, "high_freq_factor": 32.0}},
        {"rope_scaling": {**YARN, "low_freq_factor": 1.0, "high_freq_factor": 4.0}},
        {"query_pre_attn_scalar": None},
        {"window": 5},
    ],
    "qwen2": [{"rope_base": 1e4}],
    "qwen2_5": [
        {"window": None},
        {"window": 6},
        {"window": 4},
        {"window_pattern": (True,)},
        {"rope_scaling": None},
        {"activation": "gelu"},
    ],
    "qwen3": [{"rope_base": 1e4}, {"query_pre_attn_scalar": 6}],
    "qwen3_yarn": [
        {"rope_scaling": {**YARN, "kind": "llama3"}},
        {"rope_scaling": {**YARN, "original_positions": 128}},
        {"query_pre_attn_scalar": 16 / (0.1 * math.log(4) + 1) ** 4},
    ],
    "mixtral": [
        {"window": None},
        {"rope_base": 1e4},
        routed_otherwise("mixtral", normalised=False),
        routed_otherwise("mixtral", chosen=1),
    ],
    "qwen2_moe": [
        routed_otherwise("qwen2_moe", normalised=True),
        routed_otherwise("qwen2_moe", chosen=4),
    ],
    "qwen3_moe": [
        {"rope_base": 1e4},
        routed_otherwise("qwen3_moe", normalised=False),
        routed_otherwise("qwen3_moe", chosen=2),
    ],
    "gemma": [{"scale_embeddings": False}, {"activation": "gelu_exact"}],
    "gemma2": [
        {"window": 6},
        {"window": 4},
        {"window_pattern": (False, True)},
        {"attn_softcap": None},
        {"logit_softcap": None},
        {"query_pre_attn_scalar": None},
    ],
    "gemma3": [
        {"window": 6},
        {"window_pattern": (True, False)},
        {"local_rope_base": None},
        {"local_rope_base": 1e4},
        {"rope_base": 1e6},
        {"rope_scaling": None},
        {"logit_softcap": None},
        {"query_pre_attn_scalar": None},
    ],
}
# Features whose parameters are left alone when they are off.
PARAMETERS = {
    "llama2": ["qkv_bias", "output_bias", "mlp_bias"],
    "qwen2": ["qkv_bias"],
    "qwen3": ["qkv_bias", "output_bias", "qk_norm"],
    "gemma2": ["post_norms"],
    "gemma3": ["qk_norm", "post_norms"],
}
MUTATIONS = [(family, change) for family, changes in MUTANTS.items() for change in changes]
MUTATIONS += [(family, {name: False}) for family, names in PARAMETERS.items() for name in names]


@pytest.mark.parametrize(("family", "change"), MUTATIONS, ids=str)
def test_every_feature_shows_in_the_golden_logits(family, change):
    config, expected = golden(family)
    description = {**planned.plan(config).description, **change}
    _, params = planned.imported(config, families.tensor)
    model = models.build(description)
    found = score(model, params, families.tokens(1))[0]
    assert np.abs(found - expected).max() > VISIBLE


@pytest.mark.parametrize(
    ("family", "mistake"),
    [
        # Post-norms and pre-norms of the feed-forward layer, whose names differ among families.
        ("gemma2", {"post_attention_layernorm": "pre_feedforward_layernorm"}),
        ("gemma3", {"q_norm": "k_norm"}),
        ("qwen3", {"q_norm": "k_norm"}),
        ("llama2", {"post_attention_layernorm": "input_layernorm"}),
        ("qwen2", {"q_proj.bias": "v_proj.bias"}),
        ("mixtral", {".w1.": ".w3."}),
        ("mixtral", {"experts.3.": "experts.4."}),
        ("qwen2_moe", {"shared_expert.gate_proj": "shared_expert.up_proj"}),
        ("qwen2_moe", {"shared_expert_gate": "gate"}),
        ("qwen3_moe", {"experts.0.": "experts.1."}),
    ],
)
def test_every_name_shows_in_the_golden_logits(family, mistake):
    config, expected = golden(family)
    (right, wrong), *_ = mistake.items()

    def read(name, shape):
        return families.tensor(name.replace(right, wrong), shape)

    model, params = planned.imported(config, read)
    found = score(model, params, families.tokens(1))[0]
    assert np.abs(found - expected).max() > VISIBLE


def test_gemma_norms_store_the_difference_from_one():
    transform = planned.plan(golden("gemma2")[0]).weights["final_norm/scale"].transform
    stored = np.array([0.25, -1.0], jnp.bfloat16)
    np.testing.assert_array_equal(transform(stored), np.array([1.25, 0.0], np.float32))
    assert transform(stored).dtype == np.float32
    description = planned.plan(golden("gemma2")[0]).description
    model = models.build({**description, "dtype": "bfloat16", "param_dtype": "bfloat16"})
    shapes = models.shapes(model)
    assert shapes["mlp_norm_0"]["scale"].dtype == jnp.float32
    assert shapes["mlp_0"]["up"]["weight"].dtype == jnp.bfloat16


def test_all_architectures_are_tried():
    tried = {architecture for architecture, _ in families.FAMILIES.values()}
    assert tried == {*decoder_only.ARCHITECTURES, *routed.ARCHITECTURES}
