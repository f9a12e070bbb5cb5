"""Imported T5 models against the reference implementation, feature by feature."""

import functools
import json

import jax
import numpy as np
import pytest
import tokenizers

from speccascade import decode, importing, models
from speccascade.errors import UserError
from speccascade.importing.architectures import t5
from speccascade.inputs.fields import Fields
from speccascade.models.t5_positions import bucket_table
from tests.importing import planned
from tests.importing import t5_families as families
from tests.importing.t5_families import ANSWER, BATCH, PROMPTS, SLOTS, VOCAB
from tests.jitted import forward

VERSIONS = list(families.VERSIONS)
TOLERANCE = 2e-4
BLOCK = 5
ROWS = np.arange(BATCH)[:, None]
NEEDED = "the parity tests need torch and transformers (requirements-peers.txt)"

prefill = jax.jit(lambda model, *args: model.prefill(*args), static_argnums=0)
apply = jax.jit(lambda model, *args: model.apply(*args), static_argnums=0)


@functools.cache
def golden(version):
    configs, logits = families.golden()
    return configs[version], logits[version]


def score(model, params) -> np.ndarray:
    """Returns the answers' logits without a cache, float32 [B, ANSWER, V]."""
    logits = np.asarray(forward(model, params, families.whole_texts(), PROMPTS))
    return logits[ROWS, PROMPTS[:, None] - 1 + np.arange(ANSWER)]


def read_prompts(model, params):
    """Reads a ragged batch of prompts; the padding is another token's."""
    prompt = np.where(np.arange(SLOTS) < PROMPTS[:, None], families.texts()[0], VOCAB - 1)
    cache = model.init_cache(BATCH, SLOTS + ANSWER + BLOCK)
    return prefill(model, params, prompt, PROMPTS, cache)


def written(model) -> np.ndarray:
    """Returns what the decoder reads, int32 [B, ANSWER]: its start token and the answer."""
    start = np.full((BATCH, 1), model.config.decoder_start_id, np.int32)
    return np.concatenate([start, families.texts()[1][:, :-1]], axis=1)


def check_steps(model, params, expected) -> None:
    """Raises AssertionError unless one-token steps from the cache score as `expected`."""
    cache, last, position = read_prompts(model, params)
    tokens = written(model)
    np.testing.assert_array_equal(last, tokens[:, 0])
    np.testing.assert_array_equal(position, 0)
    for step in range(ANSWER):
        at = np.full((BATCH, 1), step, np.int32)
        logits, cache = apply(model, params, tokens[:, step : step + 1], at, cache)
        np.testing.assert_allclose(logits[:, 0], expected[:, step], atol=TOLERANCE)


def check_blocks(model, params, expected) -> None:
    """Raises AssertionError unless ragged, partly wrong blocks score as `expected`."""
    rng, tokens = np.random.default_rng(0), written(model)
    cache, _, position = read_prompts(model, params)
    position, scored = np.array(position), 0
    while position.min() < ANSWER - 1:
        kept = rng.integers(1, BLOCK + 1, BATCH)  # the rest of a block was drafted in vain
        at = position[:, None] + np.arange(BLOCK)
        right = (np.arange(BLOCK) < kept[:, None]) & (at < ANSWER)
        at_text = np.minimum(at, ANSWER - 1)
        block = np.where(right, tokens[ROWS, at_text], rng.integers(0, VOCAB, at.shape))
        logits, cache = apply(model, params, block.astype(np.int32), at, cache)
        wanted = expected[ROWS, at_text][right]
        np.testing.assert_allclose(np.asarray(logits)[right], wanted, atol=TOLERANCE)
        scored += right.sum()
        # On from the last right token, which is read again, or back to one before it.
        position = np.minimum(position + kept - rng.integers(0, 2, BATCH), ANSWER - 1)
    assert scored > BATCH * ANSWER


# With the reference, where torch and transformers are installed.


@pytest.fixture(scope="module", params=VERSIONS)
def pair(request, tmp_path_factory):
    """The reference's model, its logits, and ours, imported from what the reference saved."""
    pytest.importorskip("torch", reason=NEEDED)
    pytest.importorskip("transformers", reason=NEEDED)
    from tests.importing import make_golden_t5

    reference = make_golden_t5.reference(request.param)
    path = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(path)
    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(ord("A"), ord("A") + VOCAB - 4))]
    scored = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(scored, unk_id=2))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    model, params, _ = importing.load_model(str(path), dtype="float32")
    return reference, make_golden_t5.logits(reference), model, params


def test_whole_texts_score_as_in_the_reference(pair):
    _, expected, model, params = pair
    assert expected.std() > 0.5
    np.testing.assert_allclose(score(model, params), expected, atol=TOLERANCE)


def test_single_tokens_score_as_in_the_reference(pair):
    # The reference goes on from its own cache, row by row; a ragged batch goes on from ours.
    import torch

    reference, whole, model, params = pair
    prompts, tokens = families.texts()[0], written(model)
    expected = np.empty_like(whole)
    with torch.no_grad():
        for row, length in enumerate(PROMPTS):
            prompt = torch.from_numpy(prompts[row : row + 1, :length]).long()
            options = {"encoder_outputs": reference.encoder(prompt), "past_key_values": None}
            for step in range(ANSWER):
                new = torch.from_numpy(tokens[row : row + 1, step : step + 1]).long()
                read = reference(decoder_input_ids=new, use_cache=True, **options)
                options["past_key_values"] = read.past_key_values
                expected[row, step] = read.logits[0, -1].numpy()
    check_steps(model, params, expected)


def test_ragged_blocks_score_as_in_the_reference(pair):
    _, expected, model, params = pair
    check_blocks(model, params, expected)


def test_greedy_text_is_the_references(pair):
    import torch

    reference, _, model, params = pair
    prompts = [row[:n].tolist() for row, n in zip(families.texts()[0], PROMPTS, strict=True)]
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
        options = {"do_sample": False, "max_new_tokens": 64}
        options["attention_mask"] = torch.ones_like(given)
        expected = reference.generate(given, **options)[0, 1:].numpy()
        np.testing.assert_array_equal(text[:64], expected)
        assert len(set(expected.tolist())) > 2


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (32, 17), (4, 200), (12, 10)])
def test_buckets_are_the_references(buckets, distance):
    torch = pytest.importorskip("torch", reason=NEEDED)
    pytest.importorskip("transformers", reason=NEEDED)
    from transformers.models.t5.modeling_t5 import T5Attention

    for bidirectional in (False, True):
        expected = T5Attention._relative_position_bucket(
            -torch.arange(2 * distance), bidirectional, buckets, distance
        )
        own = bucket_table(buckets // (1 + bidirectional), distance)
        np.testing.assert_array_equal(own[np.minimum(np.arange(2 * distance), distance)], expected)


# With stored logits, everywhere.


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_score_as_in_the_golden_logits(version):
    config, expected = golden(version)
    model, params = planned.imported(config, families.tensor)
    np.testing.assert_allclose(score(model, params), expected, atol=TOLERANCE)
    check_steps(model, params, expected)
    check_blocks(model, params, expected)


# What a feature left out or mistaken looks like, version by version.
MUTANTS = {
    "v1_0": [
        {"activation": "gelu"},
        {"num_buckets": 8, "max_distance": 24},
        {"decoder_start_id": 1},
    ],
    "v1_1": [{"activation": "gelu_exact"}, {"norm_eps": 1e-6}, {"max_distance": 12}],
    "flan": [{"decoder_start_id": 0}, {"max_distance": 128}],
    "ul2": [{"activation": "gelu"}],
}


@pytest.mark.parametrize(
    ("version", "change"),
    [(version, change) for version, changes in MUTANTS.items() for change in changes],
    ids=str,
)
def test_every_feature_shows_in_the_golden_logits(version, change):
    config, expected = golden(version)
    _, params = planned.imported(config, families.tensor)
    model = models.build({**planned.plan(config).description, **change})
    assert np.abs(score(model, params) - expected).max() > 5 * TOLERANCE


@pytest.mark.parametrize(
    ("version", "right", "wrong"),
    [
        ("v1_1", "lm_head", "shared"),
        ("v1_1", "wi_0", "wi_1"),
        ("v1_1", "EncDecAttention", "SelfAttention"),
        ("v1_1", "decoder.block.0.layer.0.SelfAttention.relative", "encoder.relative"),
        ("flan", "decoder.final_layer_norm", "encoder.final_layer_norm"),
        ("flan", "decoder.block.1.layer.1.layer_norm", "decoder.block.1.layer.2.layer_norm"),
    ],
)
def test_every_name_shows_in_the_golden_logits(version, right, wrong):
    config, expected = golden(version)

    def read(name, shape):
        return families.tensor(name.replace(right, wrong), shape)

    model, params = planned.imported(config, read)
    assert np.abs(score(model, params) - expected).max() > 50 * TOLERANCE


# What the config.json says.


def test_the_field_of_older_releases_says_whether_the_head_is_tied():
    for version in VERSIONS:
        config = dict(golden(version)[0])
        tied = config.pop("scale_decoder_outputs")
        for name in ("dense_act_fn", "is_gated_act", "is_decoder"):
            del config[name]
        config["tie_word_embeddings"] = tied
        plan = planned.plan(config)
        assert plan == planned.plan(golden(version)[0])
        assert plan.description["tie_embeddings"] == tied == (version == "v1_0")


def test_missing_fields_are_those_of_t5_small():
    found = planned.plan(
        {"architectures": ["T5ForConditionalGeneration"], "decoder_start_token_id": 0}
    )
    assert found.description == {
        "family": "encoder_decoder",
        "vocab_size": 32128,
        "d_model": 512,
        "num_layers": 6,
        "num_decoder_layers": 6,
        "num_heads": 8,
        "head_dim": 64,
        "d_ff": 2048,
        "activation": "relu",
        "gated_mlp": False,
        "tie_embeddings": True,
        "num_buckets": 32,
        "max_distance": 128,
        "decoder_start_id": 0,
        "norm_eps": 1e-6,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj='gelu': not implemented, only relu, "),
        ({"dense_act_fn": "gelu"}, "dense_act_fn='gelu': not implemented, only 'gelu_new'"),
        ({"is_gated_act": False}, "is_gated_act=False: not implemented, only True"),
        ({"model_type": "mt5"}, "model_type='mt5': not implemented"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False: not implemented"),
        (
            {"scale_decoder_outputs": True, "tie_word_embeddings": False},
            "scale_decoder_outputs=True; it must be false where tie_word_embeddings is false",
        ),
        (
            {"decoder_start_token_id": None, "pad_token_id": None},
            "lacks decoder_start_token_id (it is null)",
        ),
    ],
)
def test_what_is_not_implemented_is_named(change, message):
    fields = Fields({**golden("flan")[0], **change}, "config.json")
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        t5.t5(fields)
    assert message in str(caught.value)


def test_all_versions_are_read_to_the_last_field():
    for version in VERSIONS:
        further = {"tie_encoder_decoder": False, "n_positions": 512}
        fields = Fields({**golden(version)[0], **further}, "config.json")
        t5.t5(fields)
        assert fields.unread() == []
