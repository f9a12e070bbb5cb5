"""T5X checkpoints: the model that the Hugging Face files of the same numbers make."""

import functools
import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

from speccascade import importing, models
from speccascade.errors import UserError
from speccascade.importing import stored_arrays
from speccascade.importing.preparation import flat
from tests.importing import jax_folder, planned, t5_families
from tests.importing import tiny_t5_checkpoint as tiny
from tests.text import makers

V1_1 = {**tiny.CONFIG, "num_decoder_layers": 1}
V1_0 = {**tiny.CONFIG, "feed_forward_proj": "relu", "tie_word_embeddings": True, "num_layers": 1}
# What no shape tells, and is not as published.
BESIDE = {"relative_attention_max_distance": 16}
SCALES = ("/scale", "/rel_embedding")
QUERY = "target/encoder/layers_0/attention/query/kernel"


def name_of(theirs: str) -> str:
    """Returns what T5X calls a tensor of the Hugging Face layout."""
    outer = {
        "shared.weight": "token_embedder/embedding",
        "lm_head.weight": "decoder/logits_dense/kernel",
        "encoder.final_layer_norm.weight": "encoder/encoder_norm/scale",
        "decoder.final_layer_norm.weight": "decoder/decoder_norm/scale",
    }
    if theirs in outer:
        return "target/" + outer[theirs]
    stack, _, layer, _, sublayer, part, *rest = theirs.split(".")
    if rest[0] == "relative_attention_bias":
        return f"target/{stack}/relpos_bias/rel_embedding"
    parts = {
        "encoder": ["attention", "mlp"],
        "decoder": ["self_attention", "encoder_decoder_attention", "mlp"],
    }
    norms = {
        "attention": "pre_attention_layer_norm",
        "self_attention": "pre_self_attention_layer_norm",
        "encoder_decoder_attention": "pre_cross_attention_layer_norm",
        "mlp": "pre_mlp_layer_norm",
    }
    own = parts[stack][int(sublayer)]
    place = f"target/{stack}/layers_{layer}"
    if part == "layer_norm":
        return f"{place}/{norms[own]}/scale"
    leaf = {"q": "query", "k": "key", "v": "value", "o": "out"}.get(rest[0], rest[0])
    return f"{place}/{own}/{leaf}/kernel"


@functools.cache
def tensors(version: str) -> dict[str, np.ndarray]:
    return tiny.tensors({"V1_0": V1_0, "V1_1": V1_1}[version])


def arrays_of(version: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a model as T5X lays them out: products and positions the other way."""
    named = {name_of(name): value for name, value in tensors(version).items()}
    kept = ("/embedding", "/scale")
    return {name: v if name.endswith(kept) else v.T.copy() for name, v in named.items()}


def write(folder, version="V1_1", arrays=None, inside=SCALES, beside=BESIDE):
    """Writes a T5X checkpoint with a tokenizer beside it."""
    jax_folder.write_t5x(folder, arrays_of(version) if arrays is None else arrays, inside)
    (folder / "config.json").write_text(json.dumps(beside))
    (folder / "sentencepiece.model").write_bytes(sentence_piece())
    return folder


@functools.cache
def sentence_piece() -> bytes:
    return makers.sentence_piece("unigram")


def assert_is(loaded, config):
    """Raises AssertionError unless a model is that of the Hugging Face layout, bit for bit."""
    model, params = planned.imported(config, t5_families.tensor)
    found, expected = flat(loaded.params), flat(params)
    assert models.describe(loaded.model) == models.describe(model)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("inside", [SCALES, ("",), ("none",)], ids=["some", "all", "none"])
def test_parameters_in_the_msgpack_file_and_beside_it(tmp_path, inside):
    loaded = importing.load(str(write(tmp_path / "t5x", inside=inside)))
    assert_is(loaded, V1_1)
    assert loaded.context_length is None


def test_the_first_version_has_a_plain_mlp_and_a_tied_head(tmp_path):
    assert_is(importing.load(str(write(tmp_path / "t5x", "V1_0"))), V1_0)


def test_what_no_shape_tells_is_as_published(tmp_path):
    folder = write(tmp_path / "t5x")
    (folder / "config.json").unlink()
    described = models.describe(importing.load(str(folder), read=False).model)
    published = {"activation": "gelu", "gated_mlp": True, "max_distance": 128, "num_buckets": 8}
    assert published.items() <= described.items()
    assert described["norm_eps"] == 1e-6 and described["decoder_start_id"] == 0
    (folder / "config.json").write_text('{"feed_forward_proj": "gated-silu"}')
    assert importing.load(str(folder), read=False).model.config.activation == "silu"


def test_the_tokenizer_is_a_t5s(tmp_path):
    folder = write(tmp_path / "above" / "t5x")
    (folder / "sentencepiece.model").rename(folder.parent / "spiece.model")
    tokenizer = importing.load(str(folder), read=False).tokenizer
    own = sentencepiece.SentencePieceProcessor(model_proto=sentence_piece()).get_piece_size()
    assert tokenizer.vocab_size == own + 100  # the sentinels, which T5X appends, too
    assert tokenizer.settings.suffix == (1,) and tokenizer.settings.prefix == ()
    assert tokenizer.settings.pad_id == 0 and tokenizer.settings.eos_ids == (1,)


def test_bfloat16_stays_what_it_is(tmp_path):
    arrays = {name: v.astype(jnp.bfloat16) for name, v in arrays_of("V1_1").items()}
    loaded = importing.load(str(write(tmp_path / "t5x", arrays=arrays)))
    assert models.describe(loaded.model)["param_dtype"] == "bfloat16"
    found = flat(loaded.params)["encoder/attention_0/query/weight"]
    np.testing.assert_array_equal(found, arrays[QUERY].T)


def test_it_becomes_a_workdir_once(tmp_path):
    source, out = str(write(tmp_path / "t5x")), str(tmp_path / "out")
    assert importing.import_checkpoint(source, out).new
    assert_is(importing.load(out), V1_1)
    assert not importing.import_checkpoint(source, out).new
    piece = next(pathlib.Path(source).glob("target.*.query.kernel/0.0"))
    piece.write_bytes(piece.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="holds another import"):
        importing.import_checkpoint(source, out)


def refused(folder, read: bool = False) -> str:
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        importing.load(str(folder), read=read)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({QUERY: None}, f"{QUERY} is missing, whose shape tells the width of a head"),
        (
            {"target/decoder/layers_0/mlp/wo/kernel": None},
            "missing: target/decoder/layers_0/mlp/wo/kernel",
        ),
        (
            {"target/decoder/layers_0/mlp/wo/bias": np.zeros(16, np.float32)},
            "left over, of no use to this architecture: target/decoder/layers_0/mlp/wo/bias",
        ),
        (
            {"target/encoder/layers_1/adapter/kernel": np.zeros((2, 2), np.float32)},
            "left over, of no use to this architecture: target/encoder/layers_1/adapter/kernel",
        ),
        (
            {"target/decoder/layers_0/self_attention/key/kernel": np.zeros((16, 9), np.float32)},
            "self_attention/key/kernel is [9, 16] instead of [8, 16]",
        ),
        (
            {"target/encoder/layers_1/attention/key/kernel": np.zeros((16, 2, 4), np.float32)},
            "attention/key/kernel is [16, 2, 4]: not 2 axes",
        ),
        (
            {"target/decoder/decoder_norm/scale": np.zeros(16, np.float64)},
            "unknown dtypes (known: F32, F16, BF16): target/decoder/decoder_norm/scale is float64",
        ),
    ],
    ids=["size", "missing", "left over", "layer", "shape", "axes", "dtype"],
)
def test_a_model_that_does_not_fit_is_named(tmp_path, change, message):
    arrays = {**arrays_of("V1_1"), **change}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    assert message in refused(write(tmp_path / "t5x", arrays=arrays))


def test_other_folders_are_named(tmp_path):
    folder = write(tmp_path / "t5x", arrays={"target/layers_0/kernel": np.zeros((2, 2))})
    assert "holds no model of a known layout" in refused(folder)
    folder = write(tmp_path / "no tokenizer")
    (folder / "sentencepiece.model").unlink()
    assert "has no tokenizer, as is usual for what JAX programs write; copy" in refused(folder)


def test_a_folder_cut_short_is_named(tmp_path):
    whole = write(tmp_path / "whole")

    def copy(name):
        return pathlib.Path(shutil.copytree(whole, tmp_path / name))

    folder = copy("piece")
    (folder / QUERY.replace("/", ".") / "1.0").unlink()
    assert f"files are missing of {QUERY}; copy piece again" in refused(folder)
    folder = copy("short")
    piece = folder / QUERY.replace("/", ".") / "1.0"
    piece.write_bytes(piece.read_bytes()[:20])
    assert f"{QUERY.replace('/', '.')} in {folder} is damaged or cut" in refused(folder, read=True)
    folder = copy("metadata")
    for text in ("{", "{}", "[]", '{"shape": [2], "chunks": [1, 1], "dtype": "<f4"}'):
        (folder / QUERY.replace("/", ".") / ".zarray").write_text(text)
        assert "metadata is damaged or cut short" in refused(folder)
    folder = copy("msgpack")
    written = (folder / "checkpoint").read_bytes()
    for size in (0, 1, 100, len(written) // 2, len(written) - 1):
        (folder / "checkpoint").write_bytes(written[:size])
        assert "checkpoint is no msgpack of arrays, perhaps cut short" in refused(folder)


def test_nothing_is_read_before_it_is_wanted(tmp_path, monkeypatch):
    folder = write(tmp_path / "t5x")
    for name in ("_read_zarr", "_read_file"):
        monkeypatch.setattr(stored_arrays, name, lambda *_: pytest.fail("an array was read"))
    assert importing.load(str(folder), read=False).model.vocab_size == 260
