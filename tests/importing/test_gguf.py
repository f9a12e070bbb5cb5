"""GGUF files: the same model as in the Hugging Face layout, and quantised weights."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_checkpoint as tiny

from speccascade import importing, models
from speccascade.errors import UserError
from speccascade.importing import gguf_files, gguf_metadata, preparation
from speccascade.importing.checkpoint import Tensor
from speccascade.inputs import gguf_header
from speccascade.inputs.fields import Fields
from tests.importing import planned

gguf = pytest.importorskip("gguf")

LAYERS = 2
GEMMA = {"hidden_act": None, "tie_word_embeddings": True, "head_dim": 4}
# GGUF architecture: the config.json of the same model, and further metadata.
FAMILIES = {
    "llama": ({}, {}),
    "qwen2": ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, {}),
    "qwen3": (
        {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 6},
        {"attention.key_length": 6, "attention.value_length": 6},
    ),
    "gemma": (
        {**GEMMA, "architectures": ["GemmaForCausalLM"], "model_type": "gemma"},
        {"attention.key_length": 4, "attention.value_length": 4},
    ),
    "gemma2": (
        {
            **GEMMA,
            "architectures": ["Gemma2ForCausalLM"],
            "model_type": "gemma2",
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 4,
            "sliding_window": 5,
            "attn_logit_softcapping": 9.0,
            "final_logit_softcapping": 8.0,
        },
        {
            "attention.sliding_window": 5,
            "attn_logit_softcapping": 9.0,
            "final_logit_softcapping": 8.0,
        },
    ),
    "gemma3": (
        {
            **GEMMA,
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 4,
            "sliding_window": 5,
            "rope_local_base_freq": 10_000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        {
            "attention.sliding_window": 5,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
}


def config_of(family):
    changes, metadata = FAMILIES[family]
    config = {k: v for k, v in {**tiny.CONFIG, **changes}.items() if v is not None}
    return config, metadata


def weights_of(config):
    """Random tensors in the Hugging Face layout."""
    plan = planned.plan(config)
    model = models.build(plan.description)
    shapes = preparation.flat(models.shapes(model))
    return tiny.tensors(shapes={w.name: shapes[key].shape for key, w in plan.weights.items()})


def write(path, family, config, weights, types=None, vocabulary=True, **metadata):
    """Writes a GGUF file as llama.cpp's converter does.

    Args:
      path: of the file.
      family: its architecture's name.
      config: the config.json.
      weights: tensors in the Hugging Face layout.
      types: of quantised tensors, by their GGUF names: a `gguf.GGMLQuantizationType` and the bytes.
      vocabulary: whether it has one.
      **metadata: other fields of the architecture; with a dot in front, of no architecture.
    """
    writer = gguf.GGUFWriter(str(path), family)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    for key, value in metadata.items():
        key = key.removeprefix(".") if key.startswith(".") else f"{family}.{key}"
        writer.kv_data[0].pop(key, None)
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add |= {bool: writer.add_bool, list: writer.add_array}
        add[type(value)](key, value)
    if vocabulary:
        tokens = sorted(gguf_alphabet())
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*tokens, "<eos>"])
        writer.add_token_types([1] * len(tokens) + [3])
        writer.add_token_merges([])
        writer.add_eos_token_id(len(tokens))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], LAYERS)
    for name, weight in weights.items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if family == "llama" and re.search(r"[qk]_proj", name):
            kind = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            weight = permute(weight, config[kind])
        if family.startswith("gemma") and name.endswith("norm.weight"):
            weight = weight + np.float32(1)
        if types and new in types:
            kind, data = types[new]
            writer.add_tensor(new, data, raw_dtype=kind)
        else:
            writer.add_tensor(new, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def gguf_alphabet():
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()


def permute(weight, heads):
    """Of llama.cpp's convert_hf_to_gguf.py."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_model_as_from_the_hugging_face_layout(tmp_path, family):
    config, metadata = config_of(family)
    weights = weights_of(config)
    path = write(tmp_path / "a.gguf", family, config, weights, **metadata)
    loaded = importing.load(path)
    expected = importing.load(str(tiny.write(tmp_path / "hf", weights, **config_changes(config))))
    assert loaded.model == expected.model
    assert loaded.context_length == 64
    assert loaded.tokenizer.vocab_size == 257
    found, wanted = preparation.flat(loaded.params), preparation.flat(expected.params)
    assert found.keys() == wanted.keys()
    for key in found:
        # Of a norm, one was added and taken off again in float32.
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=2e-7, err_msg=key)


def config_changes(config):
    return {**dict.fromkeys(tiny.CONFIG), **config}


def random_blocks(kind, rows, width):
    """Rows of any type, of random bits where these mean finite numbers."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = rows * width // block
    bits = np.random.default_rng(1).integers(0, 256, (2 * count + 64, size), np.uint8)
    with np.errstate(all="ignore"):
        finite = np.isfinite(gguf.dequantize(bits, kind)).all(axis=1)
    return bits[finite][:count].reshape(rows, -1)


@pytest.mark.parametrize("kind", gguf_files.READABLE)
def test_quantised_weights(tmp_path, monkeypatch, kind):
    config = {**tiny.CONFIG, "hidden_size": 256, "num_attention_heads": 4, "head_dim": 64}
    weights = weights_of(config)
    quantised = gguf.GGMLQuantizationType[kind]
    shapes = {"token_embd": (260, 256), "blk.1.attn_q": (256, 256), "blk.0.attn_norm": (1, 256)}
    types = {
        f"{name}.weight": (quantised, random_blocks(quantised, *shape))
        for name, shape in shapes.items()
    }
    types["blk.0.attn_norm.weight"] = quantised, types["blk.0.attn_norm.weight"][1][0]
    path = write(tmp_path / "a.gguf", "llama", config, weights, types)
    monkeypatch.setattr(importing.arrays, "_PIECE", 256 * 4 * 7)  # not in one piece
    _, params, _ = importing.load_model(path, "float32")
    floats = {new: gguf.dequantize(data, quantised) for new, (_, data) in types.items()}
    layers = params["attention_0"], params["attention_1"]
    query = permute(np.asarray(layers[1]["query"]["weight"]), 4)
    for found, name in (
        (params["embedding"], "token_embd"),
        (query, "blk.1.attn_q"),
        (params["attention_norm_0"]["scale"], "blk.0.attn_norm"),
    ):
        np.testing.assert_array_equal(found, floats[f"{name}.weight"], err_msg=name, strict=True)
    names = preparation.flat(importing.load_model(path, "bfloat16")[1])
    expected = floats["token_embd.weight"].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(names["embedding"], expected, strict=True)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F32", "float32"), ("F16", "float32"), ("BF16", "bfloat16"), ("Q8_0", "bfloat16")]
    + [("Q4_K", "bfloat16"), ("IQ1_S", "bfloat16")],
)
def test_the_dtype_that_nobody_asked_for_and_the_size_are_said(tmp_path, capsys, kind, dtype):
    config = {**tiny.CONFIG, "hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    weights, quantised = weights_of(config), gguf.GGMLQuantizationType[kind]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    types = {
        names.get_name(old, try_suffixes=(".weight",)): (
            quantised,
            random_blocks(quantised, *weight.shape),
        )
        for old, weight in weights.items()
        if weight.ndim == 2
    }
    path = write(tmp_path / "a.gguf", "llama", config, weights, types)
    loaded = importing.load(path)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(loaded.params)} == {dtype}
    size = sum(weight.size for weight in weights.values())
    stored = "F32" if kind == "F32" else f"{kind}, F32"
    total = f"{size * (2 if dtype == 'bfloat16' else 4) / 1e6:,.1f} MB in {dtype}\n"
    said = f"importing {path}: {size / 1e6:.1f}M parameters, stored as {stored}, become {total}"
    assert capsys.readouterr().err.startswith(said)
    other = {"float32": "bfloat16", "bfloat16": "float32"}[dtype]
    out = str(tmp_path / "out")
    assert f"MB in {other}" in str(importing.import_checkpoint(path, out, other))


def test_all_types_of_the_library_are_read():
    names = {kind.name for kind in gguf.quants._type_traits} | {"F32", "F16"}
    assert set(gguf_files.READABLE) == names
    assert {"Q2_K", "Q3_K", "Q5_K", "Q5_0", "Q5_1", "IQ4_XS", "IQ1_S", "TQ1_0"} <= names


# llama.cpp writes these where a row does not divide by 256, as in Gemma-3 270M and Qwen2.5 0.5B.
MIXED = {"attn_q": "Q5_0", "attn_k": "Q5_0", "attn_v": "Q8_0", "attn_output": "Q5_1"}
MIXED |= {"ffn_gate": "Q5_0", "ffn_up": "IQ4_NL", "token_embd": "Q8_0"}
ROWS_OF_256 = {"0.ffn_down": "Q6_K", "1.ffn_down": "Q4_K"}


@pytest.mark.parametrize("family", ["gemma3", "qwen2"])
def test_the_mixture_of_types_in_published_files(tmp_path, family):
    config, metadata = config_of(family)
    config |= {"hidden_size": 96, "intermediate_size": 256}
    if family == "gemma3":  # whose heads are wider than their share
        config |= {"head_dim": 32, "query_pre_attn_scalar": 32}
        metadata = {**metadata, "attention.key_length": 32, "attention.value_length": 32}
    weights, types = weights_of(config), {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], LAYERS)
    for old in weights:
        new = names.get_name(old, try_suffixes=(".weight", ".bias"))
        part = new.removesuffix(".weight").removeprefix("blk.")
        name = ROWS_OF_256.get(part) or MIXED.get(part.split(".")[-1])
        if name is None or not new.endswith(".weight"):
            continue
        kind = gguf.GGMLQuantizationType[name]
        data = random_blocks(kind, *weights[old].shape)
        types[new] = kind, data
        weights[old] = gguf.dequantize(data, kind)
    assert {kind.name for kind, _ in types.values()} == {*MIXED.values(), *ROWS_OF_256.values()}
    path = write(tmp_path / "a.gguf", family, config, weights, types, **metadata)
    loaded = importing.load(path, "float32")
    expected = importing.load(str(tiny.write(tmp_path / "hf", weights, **config_changes(config))))
    found, wanted = preparation.flat(loaded.params), preparation.flat(expected.params)
    assert found.keys() == wanted.keys()
    for key in found:
        bound = 2e-7 if "norm" in key else 0
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=bound, err_msg=key)


PER_LAYER = {
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "feed_forward_length": 24,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 10_000.0,
}


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_one_value_for_each_layer(tmp_path, family):
    config, metadata = config_of(family)
    weights = weights_of(config)
    plain = importing.load(write(tmp_path / "a.gguf", family, config, weights, **metadata))
    metadata = metadata | {name: [value] * LAYERS for name, value in PER_LAYER.items()}
    listed = importing.load(write(tmp_path / "b.gguf", family, config, weights, **metadata))
    assert listed.model == plain.model


def test_which_layers_slide_may_be_listed(tmp_path):
    config, metadata = config_of("gemma3")
    weights = weights_of(config)
    for slides, pattern in (([True, False], (True, False)), ([1, 1], (True, True)), (2, None)):
        metadata = {**metadata, "attention.sliding_window_pattern": slides}
        path = write(tmp_path / "a.gguf", "gemma3", config, weights, **metadata)
        found = importing.load(path).model.config.window_pattern
        assert found == (pattern or (True, False))
    metadata["attention.sliding_window_pattern"] = [True]
    path = write(tmp_path / "a.gguf", "gemma3", config, weights, **metadata)
    with pytest.raises(UserError, match=r"gemma3.attention.sliding_window_pattern=\[True\]"):
        importing.load(path)


HARMLESS = (
    {"tensor_data_layout": "Meta AI original pth"},
    {"tensor_data_layout": "reference"},
    {"rope.scale_linear": 1.0},
    {"rope.scaling.factor": 1.0},
    {"rope.scaling.type": "linear", "rope.scaling.factor": 1.0},
    {"rope.scaling.type": "yarn", "rope.scaling.factor": 1.0},
    {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
    {"rope.scaling.attn_factor": 1.0},
    {"rope.scaling.original_context_length": 16, "rope.scaling.finetuned": True},
    {"rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0},
    {"rope.dimension_count": 4, "attention.key_length": 4, "attention.value_length": 4},
    {"use_parallel_residual": 0},
    {"use_parallel_residual": False},
    {"attention.causal": True},
    {"attention.causal": 1},
    {"attention.clamp_kqv": 0.0, "attention.max_alibi_bias": 0.0},
    {"attention.sliding_window": 64, "logit_scale": 1.0, "attention.scale": 0.5},
    {"pooling_type": 0, "vocab_size": 9, "expert_count": 0, "expert_shared_count": 0},
)
OTHERS = {".general.name": "x", ".split.count": 1, ".split.no": 0, ".qwen2.wings": 3}


def test_metadata_without_effect(tmp_path):
    weights = tiny.tensors()
    plain = gguf_header.read(write(tmp_path / "a.gguf", "llama", tiny.CONFIG, weights)).metadata
    stored = {"token_embd.weight": Tensor((10, 16), "F32", None)}
    wanted = gguf_metadata.read(plain, stored, "a.gguf")
    for more in HARMLESS:
        metadata = plain | {f"llama.{key}": value for key, value in more.items()}
        assert gguf_metadata.read(metadata, stored, "a.gguf") == wanted, more
    path = write(tmp_path / "b.gguf", "llama", tiny.CONFIG, weights, **OTHERS)
    assert importing.load(path).model == importing.load(str(tmp_path / "a.gguf")).model


@pytest.mark.parametrize(
    "more",
    [
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        {"rope.scaling.factor": 4.0},  # of a file without a type, in llama.cpp
        {"rope.scale_linear": 4.0},  # the old name
    ],
    ids=str,
)
def test_linear_scaling(tmp_path, more):
    weights = tiny.tensors()
    path = write(tmp_path / "a.gguf", "llama", tiny.CONFIG, weights, **more)
    scaled = tiny.write(tmp_path / "hf", rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert importing.load(path).model == importing.load(str(scaled)).model


VALUES = ("abc", "4", [4, 2], [], -1, 0, 7, 1.5, float("nan"), 2**40, True, "", None, [[1]], {})
ASKED = (
    "block_count context_length embedding_length feed_forward_length attention.head_count "
    "attention.head_count_kv attention.key_length attention.value_length rope.dimension_count "
    "rope.freq_base rope.scaling.type rope.scaling.factor rope.scale_linear vocab_size "
    "attention.layer_norm_rms_epsilon attention.sliding_window attention.sliding_window_pattern "
    "rope.freq_base_swa attn_logit_softcapping final_logit_softcapping attention.causal "
    "tensor_data_layout pooling_type expert_count attention.scale"
).split()


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_any_value_is_read_or_one_line(family, name):
    good = {
        "general.architecture": family,
        f"{family}.block_count": 2,
        f"{family}.context_length": 64,
        f"{family}.embedding_length": 16,
        f"{family}.feed_forward_length": 24,
        f"{family}.attention.head_count": 4,
        f"{family}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{family}.attention.sliding_window": 64,
    }
    stored = {"token_embd.weight": Tensor((10, 16), "F32", None)}
    gguf_metadata.read(good, dict(stored), "a.gguf")
    refused = 0
    for value in VALUES:
        metadata = {**good, f"{family}.{name}": value}
        try:
            _, config = gguf_metadata.read(metadata, dict(stored), "a.gguf")
        except UserError as error:
            refused += 1
            assert str(error).startswith("a.gguf ") and "\n" not in str(error)
            continue
        try:
            plan, _ = preparation._plan(Fields(config, "a.gguf"))
            models.build(plan.description) if plan else None
        except UserError as error:
            assert "\n" not in str(error)
    assert refused or name in ("vocab_size", "attention.sliding_window_pattern")


def test_tied_head_and_workdir(tmp_path):
    config, _ = config_of("llama")
    weights = weights_of(config)
    del weights["lm_head.weight"]
    path, out = write(tmp_path / "a.gguf", "llama", config, weights), tmp_path / "out"
    assert importing.import_checkpoint(path, str(out)).new
    loaded = importing.load(str(out))
    assert "head" not in loaded.params and loaded.model.config.tie_embeddings
    assert loaded.context_length == 64
    assert loaded.tokenizer == importing.load(path).tokenizer
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("hello")) == "hello"
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_llama3_scaling_is_found_from_its_frequencies(tmp_path):
    """The file keeps what each frequency is divided by, of the scaling's parameters none."""
    config = {**tiny.CONFIG, "hidden_size": 256, "head_dim": 64, "rope_theta": 500_000.0}
    weights = weights_of(config)
    factors = []
    for frequency in 500_000.0 ** (-np.arange(0, 64, 2) / 64):  # as in convert_hf_to_gguf.py
        wavelength = 2 * np.pi / frequency
        if wavelength < 8192 / 4:
            factors.append(1)
        elif wavelength > 8192 / 1:
            factors.append(32)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / 32 + smooth))
    factors = np.array(factors, np.float32)
    weights["rope_freqs"] = factors

    def path(name):
        names = gguf.TensorNameMap
        original = names.get_name
        try:  # the converter, too, writes it beside its table of names
            names.get_name = lambda self, key, **kw: (
                "rope_freqs.weight" if key == "rope_freqs" else original(self, key, **kw)
            )
            return write(tmp_path / name, "llama", config, weights)
        finally:
            names.get_name = original

    scaling = importing.load(path("a.gguf")).model.config.rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_positions) == ("llama3", 32.0, 8192)
    assert (scaling.low_freq_factor, scaling.high_freq_factor) == (1.0, 4.0)
    weights["rope_freqs"] = factors * 2
    with pytest.raises(UserError, match="another scaling than that of Llama 3.1"):
        importing.load(path("b.gguf"))


def test_the_27b_gemmas_scale_attention_otherwise():
    """As llama.cpp has it: of these two models the file does not say so."""
    for family, layers, width, heads, scalar in (
        ("gemma2", 46, 4608, 32, 144),
        ("gemma2", 42, 3584, 16, 256),
        ("gemma3", 62, 5376, 32, 168),
    ):
        metadata = {
            "general.architecture": family,
            f"{family}.block_count": layers,
            f"{family}.embedding_length": width,
            f"{family}.attention.head_count": heads,
            f"{family}.attention.head_count_kv": 16,
            f"{family}.attention.key_length": 256 if heads == 16 else 128,
            f"{family}.attention.sliding_window": 4096,
            f"{family}.attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
            f"{family}.feed_forward_length": 8,
            f"{family}.context_length": 8192,
        }
        stored = {"token_embd.weight": Tensor((10, width), "F32", None)}
        _, config = gguf_metadata.read(metadata, stored, "a.gguf")
        assert config["query_pre_attn_scalar"] == scalar
        assert config["rms_norm_eps"] == 1e-6


def bad(**metadata):
    return lambda path: write(path, "llama", tiny.CONFIG, tiny.tensors(), **metadata)


def of_unknown_type(path):
    weights, quantised = tiny.tensors(), gguf.GGMLQuantizationType.I8
    data = weights["model.embed_tokens.weight"].astype(np.int8)
    write(path, "llama", tiny.CONFIG, weights, {"token_embd.weight": (quantised, data)})


def cut(share):
    def make(path):
        bad()(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return make


def without(name):
    weights = {k: v for k, v in tiny.tensors().items() if name not in k}
    return lambda path: write(path, "llama", tiny.CONFIG, weights)


def with_nan(path):
    weights = tiny.tensors()
    weights["model.layers.1.self_attn.q_proj.weight"][3, 3] = np.nan
    write(path, "llama", tiny.CONFIG, weights)


BAD = {
    "architecture": (
        lambda path: write(path, "falcon", tiny.CONFIG, {}),
        "a.gguf has general.architecture='falcon': not implemented, only llama",
    ),
    "type": (of_unknown_type, "): model.embed_tokens.weight is I8"),
    "field": (
        bad(logit_scale=0.5),
        "a.gguf has llama.logit_scale=0.5: not implemented, only 1 or 0",
    ),
    "unknown field": (bad(wings=2), "a.gguf has metadata of no known use: llama.wings"),
    "experts": (bad(expert_count=8), "expert_count=8"),
    "rotation": (bad(**{"rope.dimension_count": 2}), "rope.dimension_count=2"),
    "scaling": (bad(**{"rope.scaling.type": "yarn"}), "rope.scaling.type='yarn'"),
    "window": (bad(**{"attention.sliding_window": 8}), "llama.attention.sliding_window=8"),
    "layers": (
        bad(**{"attention.head_count_kv": [2, 4]}),
        "a.gguf has llama.attention.head_count_kv=[2, 4]; it must be a whole number",
    ),
    "scale": (bad(**{"attention.scale": 1.0}), "llama.attention.scale=1.0; it must be 1 / sqrt(4)"),
    "few layers": (bad(feed_forward_length=[24]), "llama.feed_forward_length=[24]"),
    "split": (bad(**{".split.count": 3}), "one of several parts"),
    "vocabulary": (bad(vocabulary=False), "lacks tokenizer.ggml.model"),
    "tensor": (without("0.mlp.up"), "missing: model.layers.0.mlp.up_proj.weight"),
    "embedding": (without("embed"), "token_embd.weight"),
    "cut 0": (cut(0), "no GGUF file or is cut short"),
    "cut 1": (cut(0.05), "no GGUF file or is cut short"),
    "cut 9": (cut(0.98), "no GGUF file or is cut short"),
    "text": (lambda path: path.write_text("hello, this is no model"), "no GGUF file"),
    "nan": (with_nan, "NaN or infinite values: model.layers.1.self_attn.q_proj.weight"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    make, words = BAD[name]
    make(tmp_path / "a.gguf")
    with pytest.raises(UserError) as error:
        importing.import_checkpoint(str(tmp_path / "a.gguf"), str(tmp_path / "out"))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]
