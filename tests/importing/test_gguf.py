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
from speccascade.importing import gguf_files, preparation
from speccascade.importing.checkpoint import Tensor
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
    shapes = preparation.flat(jax.eval_shape(model.init, jax.random.key(0)))
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
      **metadata: further fields of the architecture; with a dot in front, of no architecture.
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
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
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


def k_blocks(kind, rows, width):
    """Random blocks of a K type, with finite scales; gguf cannot quantise to them."""
    size = {"Q4_K": 144, "Q6_K": 210}[kind]
    blocks = np.random.default_rng(1).integers(0, 256, (rows, width // 256, size), np.uint8)
    scales = np.array([0.01, 0.02], np.float16).view(np.uint8)
    place = slice(0, 4) if kind == "Q4_K" else slice(208, 210)
    blocks[..., place] = scales[: place.stop - place.start]
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize("kind", gguf_files.READABLE)
def test_quantised_weights(tmp_path, monkeypatch, kind):
    wide = {"hidden_size": 256, "num_attention_heads": 4, "head_dim": 64}
    config = {**tiny.CONFIG, **wide}
    weights = weights_of(config)
    quantised = gguf.GGMLQuantizationType[kind]
    names = {"token_embd.weight": "model.embed_tokens.weight"}
    names["blk.1.attn_q.weight"] = "model.layers.1.self_attn.q_proj.weight"
    types = {}
    for new, old in names.items():
        if kind.endswith("_K"):
            data = k_blocks(kind, *weights[old].shape)
        else:
            stored = permute(weights[old], 4) if "attn_q" in new else weights[old]
            data = gguf.quantize(stored, quantised)
        types[new] = quantised, data
    path = write(tmp_path / "a.gguf", "llama", config, weights, types)
    monkeypatch.setattr(importing.arrays, "_PIECE", 256 * 4 * 7)  # not in one piece
    dtype = ml_dtypes.bfloat16 if kind == "BF16" else np.float32
    _, params, _ = importing.load_model(path, np.dtype(dtype).name)
    floats = {new: gguf.dequantize(data, quantised) for new, (_, data) in types.items()}
    expected = floats["token_embd.weight"].astype(dtype)
    np.testing.assert_array_equal(params["embedding"], expected)
    query = np.asarray(params["attention_1"]["query"]["weight"])
    stored = floats["blk.1.attn_q.weight"].astype(dtype)
    np.testing.assert_array_equal(permute(query, 4), stored)
    if not kind.endswith("_K"):
        error = np.abs(
            np.asarray(params["embedding"], np.float32) - weights[names["token_embd.weight"]]
        )
        assert error.max() < {"F32": 1e-9, "F16": 2e-3, "BF16": 2e-2, "Q8_0": 0.03}.get(kind, 0.5)


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
        config, _ = gguf_files._convert(metadata, stored)
        assert config["query_pre_attn_scalar"] == scalar
        assert config["rms_norm_eps"] == 1e-6


def bad(**metadata):
    return lambda path: write(path, "llama", tiny.CONFIG, tiny.tensors(), **metadata)


def of_unknown_type(path):
    config = {**tiny.CONFIG, "hidden_size": 256, "head_dim": 64}
    weights, quantised = weights_of(config), gguf.GGMLQuantizationType.Q5_0
    data = gguf.quantize(weights["model.embed_tokens.weight"], quantised)
    write(path, "llama", config, weights, {"token_embd.weight": (quantised, data)})


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
        "GGUF architecture 'falcon' is unknown; known: llama",
    ),
    "type": (of_unknown_type, "Q6_K): model.embed_tokens.weight is Q5_0"),
    "field": (bad(logit_scale=0.5), "fields of no known use: logit_scale"),
    "experts": (bad(expert_count=8), "expert_count=8"),
    "rotation": (bad(**{"rope.dimension_count": 2}), "rope.dimension_count=2"),
    "scaling": (bad(**{"rope.scaling.type": "yarn"}), "rope.scaling.type='yarn'"),
    "split": (bad(**{".split.count": 3}), "one of several parts"),
    "vocabulary": (bad(vocabulary=False), "vocabulary"),
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
