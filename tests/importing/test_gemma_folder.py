"""Gemma's Orbax folders: logits as the library `gemma` computes them from the same arrays."""

import functools
import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
import sentencepiece

from speccascade import importing
from speccascade.errors import UserError
from speccascade.importing import gemma_layout
from speccascade.importing.stored_arrays import StoredArray, StoredArrays
from tests.importing import gemma_reference as reference
from tests.text import makers

QUERY = "layer_1/attn/q_einsum/w"
MODELS = {
    "1": reference.Sizes(1, num_kv_heads=1),
    "1, all heads": reference.Sizes(1, num_kv_heads=4),
    "2": reference.Sizes(
        2,
        (True, False),
        query_pre_attn_scalar=3**-0.5,
        sliding_window_size=5,
        attn_logits_soft_cap=50.0,
        final_logit_softcap=30.0,
        transpose_gating_einsum=True,
    ),
    "3": reference.Sizes(
        3,
        (True, False),
        query_pre_attn_scalar=3**-0.5,
        transpose_gating_einsum=True,
        global_base_frequency=1e6,
        global_scale_factor=8.0,
    ),
}
# What a model of no published size must say of itself.
BESIDE = {
    "1": {},
    "1, all heads": {},
    "2": {"query_pre_attn_scalar": 3, "sliding_window": 5},
    "3": {
        "max_position_embeddings": 64,
        "query_pre_attn_scalar": 3,
        "sliding_window": 3,
        "sliding_window_pattern": 2,
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}
        },
    },
}


def nested(params):
    """As the library saves them."""
    tree: dict = {}
    for name, value in params.items():
        *path, leaf = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return tree


def flat(params):
    """As they are published: one dict, and a part of Gemma 3 that sees beside it."""
    sees = "SigLiPFromPatches_0/siglip_encoder/Transformer/encoder_norm"
    tree: dict = {sees: {"scale": np.ones(3, np.float32)}}
    for name, value in params.items():
        name = name if not name.endswith(("gating_einsum", "linear")) else f"{name}/w"
        path, leaf = name.rsplit("/", 1)
        tree.setdefault(f"transformer/{path}", {})[leaf] = value
    tree["transformer/embedder"]["mm_input_projection"] = np.ones((2, 3), np.float32)
    return tree


def trained(params):
    """As Kauldron keeps a state."""
    return {"params": nested(params), "step": np.int32(3), "opt_state": {"mu": np.ones(3)}}


FORMS = {"nested": nested, "flat": flat, "trained": trained}


@functools.cache
def sentence_piece() -> bytes:
    symbols = ["<start_of_turn>", "<end_of_turn>"]
    return makers.sentence_piece("bpe", user_defined_symbols=symbols)


def write(folder, name="3", form="nested", database=True, params=None, beside=None):
    """Writes an Orbax folder with a tokenizer in the folder above, as published archives have it.

    Args:
      folder: made here.
      name: of `MODELS`.
      form: of `FORMS`.
      database: whether the arrays lie in an OCDBT database.
      params: by name; None for the model's own.
      beside: of the config.json in it; None for what the model needs.
    """
    params = reference.arrays(MODELS[name]) if params is None else params
    with orbax.checkpoint.PyTreeCheckpointer(use_ocdbt=database) as checkpointer:
        checkpointer.save(folder, FORMS[form](params))
    (folder / "config.json").write_text(json.dumps(BESIDE[name] if beside is None else beside))
    (folder.parent / "tokenizer.model").write_bytes(sentence_piece())
    return folder


@pytest.mark.parametrize(
    ("name", "form", "database"),
    [
        ("1", "flat", False),
        ("1, all heads", "nested", True),
        ("2", "flat", True),
        ("3", "flat", True),
        ("3", "trained", False),
    ],
)
def test_logits_are_the_librarys(tmp_path, name, form, database):
    folder = write(tmp_path / "above" / "model", name, form, database)
    # The archive's own folder is as good a name.
    loaded = importing.load(str(folder if database else folder.parent))
    tokens = np.random.default_rng(0).integers(0, MODELS[name].num_embed, (2, 9), np.int32)
    expected = reference.logits(MODELS[name], reference.arrays(MODELS[name]), tokens)
    found = loaded.model.forward(loaded.params, jnp.asarray(tokens), jnp.array([9, 9]))
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    assert loaded.context_length == (64 if name == "3" else 8192)


@pytest.mark.parametrize(
    "change",
    [
        {"query_pre_attn_scalar": 4},
        {"sliding_window": 4},
        {"sliding_window_pattern": 1},
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
    ],
    ids=str,
)
def test_what_is_said_beside_them_shows(tmp_path, change):
    folder = write(tmp_path / "model", beside={**BESIDE["3"], **change})
    loaded = importing.load(str(folder))
    tokens = np.arange(18, dtype=np.int32).reshape(2, 9)
    right = reference.logits(MODELS["3"], reference.arrays(MODELS["3"]), tokens)
    found = loaded.model.forward(loaded.params, jnp.asarray(tokens), jnp.array([9, 9]))
    assert np.abs(found - right).max() > 1e-2 * np.abs(right).max()


def test_the_tokenizer_ends_an_answer_at_the_end_of_a_turn(tmp_path):
    tokenizer = importing.load(str(write(tmp_path / "model", "1")), read=False).tokenizer
    pieces = sentencepiece.SentencePieceProcessor(model_proto=sentence_piece())
    ends = [pieces.id_to_piece(index) for index in tokenizer.settings.eos_ids]
    assert ends == ["</s>", "<end_of_turn>"]
    assert [pieces.id_to_piece(index) for index in tokenizer.settings.prefix] == ["<s>"]


def shapes(width, layers, heads, kv_heads, head_dim, d_ff, vocab_size, norms, turned):
    """Returns the arrays of a published size, which nobody reads."""
    per_layer = {
        "attn/attn_vec_einsum/w": (heads, head_dim, width),
        "mlp/gating_einsum/w": (2, d_ff, width) if turned else (2, width, d_ff),
        "mlp/linear/w": (d_ff, width),
        **{f"{norm}/scale": (width,) for norm in norms},
    }
    if heads == kv_heads:
        per_layer["attn/qkv_einsum/w"] = (3, heads, width, head_dim)
    else:
        per_layer["attn/q_einsum/w"] = (heads, width, head_dim)
        per_layer["attn/kv_einsum/w"] = (2, kv_heads, width, head_dim)
    if "post_ffw_norm" in norms and vocab_size > 262_000:
        per_layer |= {f"attn/{name}/scale": (head_dim,) for name in ("_query_norm", "_key_norm")}
    found = {
        f"transformer/layer_{i}/{name}": shape
        for i in range(layers)
        for name, shape in per_layer.items()
    }
    found["transformer/embedder/input_embedding"] = (vocab_size, width)
    found["transformer/final_norm/scale"] = (width,)
    return StoredArrays({name: StoredArray(shape, "BF16", None) for name, shape in found.items()})


_ONE, _TWO = ("pre_attention_norm", "pre_ffw_norm"), ("post_attention_norm", "post_ffw_norm")
PUBLISHED = {
    # Width, layers, heads, key-value heads, head_dim, d_ff, vocabulary.
    "1, 2B": ((2048, 18, 8, 1, 256, 16384, 256128, _ONE, False), {"model_type": "gemma"}),
    "1, 7B": ((3072, 28, 16, 16, 256, 24576, 256128, _ONE, False), {"num_key_value_heads": 16}),
    "2, 2B": (
        (2304, 26, 8, 4, 256, 9216, 256128, _ONE + _TWO, False),
        {"model_type": "gemma2", "query_pre_attn_scalar": 256},
    ),
    "2, 27B": (
        (4608, 46, 32, 16, 128, 36864, 256128, _ONE + _TWO, True),
        {"model_type": "gemma2", "query_pre_attn_scalar": 144},
    ),
    "3, 1B": (
        (1152, 26, 4, 1, 256, 6912, 262144, _ONE + _TWO, True),
        {"query_pre_attn_scalar": 256, "sliding_window": 512, "max_position_embeddings": 32768},
    ),
    "3, 4B": (
        (2560, 34, 8, 4, 256, 10240, 262144, _ONE + _TWO, True),
        {"query_pre_attn_scalar": 256, "sliding_window": 1024, "max_position_embeddings": 131072},
    ),
    "3, 27B": (
        (5376, 62, 32, 16, 128, 21504, 262144, _ONE + _TWO, True),
        {"model_type": "gemma3_text", "query_pre_attn_scalar": 168, "num_hidden_layers": 62},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_known(name):
    sizes, expected = PUBLISHED[name]
    layout = gemma_layout.read(shapes(*sizes))
    assert expected.items() <= layout.config.items() and layout.unsaid == ()
    if name.startswith("3"):
        scaled = layout.config["rope_parameters"]["full_attention"]
        assert scaled.get("factor") == (None if name == "3, 1B" else 8.0)
    stored = {place.stored for place in layout.places}
    assert stored == shapes(*sizes).arrays.keys()


def refused(folder) -> str:
    with pytest.raises(UserError, match="^[^\n]+$") as caught:
        importing.load(str(folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_0/attn/q_einsum/w": None}, "layer_0/attn/q_einsum/w is missing, whose shape"),
        ({QUERY: None}, f"missing: {QUERY}"),
        ({QUERY: np.zeros((4, 5, 6), np.float32)}, f"{QUERY} is [24, 5] instead of [24, 16]"),
        ({QUERY: np.zeros((4, 6), np.float32)}, f"{QUERY} is [4, 6]: not 3 axes"),
        (
            {"layer_1/per_layer_input_gate/w": np.zeros((2, 2), np.float32)},
            "left over, of no use to this architecture: layer_1/per_layer_input_gate/w",
        ),
        ({QUERY: np.zeros((4, 16, 6), np.int8)}, f"(known: F32, F16, BF16): {QUERY} is |i1"),
    ],
    ids=["size", "missing", "shape", "axes", "left over", "dtype"],
)
def test_a_model_that_does_not_fit_is_named(tmp_path, change, message):
    params = {**reference.arrays(MODELS["3"]), **change}
    params = {name: value for name, value in params.items() if value is not None}
    assert message in refused(write(tmp_path / "model", params=params))


def test_a_folder_that_lacks_something_is_named(tmp_path):
    whole = write(tmp_path / "whole")

    def copy(name):
        return pathlib.Path(shutil.copytree(whole, tmp_path / name))

    folder = copy("size")
    (folder / "config.json").unlink()
    wanted = "max_position_embeddings, query_pre_attn_scalar, rope_parameters, sliding_window"
    message = f"is of no published size; put a config.json into it that says {wanted}"
    assert message in refused(folder)
    folder = copy("database")
    for path in (folder / "d").iterdir():
        path.unlink()
    assert f"{folder} is damaged or cut short" in refused(folder)
    folder = copy("pieces")
    for path in folder.glob("ocdbt.process_*/d/*"):
        path.write_bytes(path.read_bytes()[:100])
    assert f"{folder} is damaged or cut short" in refused(folder)
    (tmp_path / "tokenizer.model").unlink()
    assert "has no tokenizer, as is usual for what JAX programs write; copy" in refused(whole)
