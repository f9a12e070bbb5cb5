"""Reads GGUF files: metadata as the fields of a config.json, tensors by their Hugging Face names.

What llama.cpp's converter changed is changed back, so that one architecture's plan serves both
formats: Llama's query and key rows are reordered there, Gemma's norm scales have one added.
"""

import dataclasses
import functools
import pathlib
import re
from typing import Any

import gguf
import numpy as np

from speccascade import gguf_header
from speccascade.errors import UserError
from speccascade.gguf_header import TensorInfo
from speccascade.importing.checkpoint import Checkpoint, Tensor
from speccascade.importing.weights import Fields
from speccascade.text import Tokenizer, gguf_vocabulary


def _restores(kind: gguf.GGMLQuantizationType) -> bool:
    """Returns whether `gguf` can make floats of a type."""
    block = np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    try:
        gguf.dequantize(block, kind)
    except NotImplementedError:
        return False
    return True


READABLE = tuple(kind.name for kind in gguf.GGMLQuantizationType if _restores(kind))

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Gemma 2 and 3 have norms on both sides.
_POST_NORMS = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_ROPE_FACTORS = "rope_freqs.weight"


def read(path: pathlib.Path) -> tuple[dict[str, Any], Checkpoint, Tokenizer]:
    """Reads the metadata and the vocabulary and lists the tensors.

    Returns:
      The fields of the config.json that the same model has in the Hugging Face layout, the
      tensors, and the tokenizer.

    Raises:
      UserError: the file is damaged, or its architecture or something in its metadata is unknown.
    """
    header = gguf_header.read(path)
    metadata = {k: v for k, v in header.metadata.items() if not k.startswith("tokenizer.")}
    if metadata.get("split.count", 1) > 1:
        raise UserError(f"{path} is one of several parts; merge them with llama-gguf-split")
    stored = {}
    for tensor in header.tensors:
        read_rows = functools.partial(_read_rows, path, tensor)
        readable = tensor.kind in READABLE
        stored[tensor.name] = Tensor(tensor.shape, tensor.kind, read_rows if readable else None)
    config, convert = _convert(metadata, stored)
    tokenizer = gguf_vocabulary.from_fields(header.metadata, str(path))
    return config, Checkpoint(dict(map(convert, stored.items())), READABLE), tokenizer


def _read_rows(path: pathlib.Path, tensor: TensorInfo, start: int, stop: int) -> np.ndarray:
    if len(tensor.shape) < 2:  # blocks end where rows do: a vector is one row
        row = dataclasses.replace(tensor, shape=(1, *tensor.shape))
        return _read_rows(path, row, 0, 1).reshape(-1)[start:stop]
    rows = tensor.shape[0]
    stop = min(stop, rows)
    each = tensor.nbytes // rows
    offset = tensor.offset + start * each
    data = np.fromfile(path, np.uint8, (stop - start) * each, offset=offset)
    floats = gguf.dequantize(
        data.reshape(stop - start, each), gguf.GGMLQuantizationType[tensor.kind]
    )
    return floats.reshape(stop - start, *tensor.shape[1:])


def _convert(metadata: dict[str, Any], stored: dict[str, Tensor]):
    """Returns the config and the function that renames and restores one tensor."""
    name = metadata.get("general.architecture")
    if name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UserError(f"GGUF architecture {name!r} is unknown; known: {known}")
    own = {
        key.removeprefix(f"{name}."): _short(value)
        for key, value in metadata.items()
        if key.startswith(f"{name}.")
    }
    fields = Fields(own, file="the GGUF's metadata")
    config = _ARCHITECTURES[name](fields, stored)
    if unread := fields.unread():
        raise UserError(f"the GGUF's metadata has fields of no known use: {', '.join(unread)}")
    blocks = {**_BLOCK, **(_POST_NORMS if name in ("gemma2", "gemma3") else {})}

    def convert(item: tuple[str, Tensor]) -> tuple[str, Tensor]:
        old, tensor = item
        new = _rename(old, blocks)
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
        part = old.split(".")[2] if old.startswith("blk.") and old.count(".") == 3 else ""
        if name == "llama" and part in heads:
            restore = functools.partial(_unpermute, config[heads[part]])
            return new, dataclasses.replace(tensor, restore=restore)
        if name.startswith("gemma") and new.endswith("norm.weight"):
            return new, dataclasses.replace(tensor, restore=lambda scale: scale - np.float32(1))
        return new, tensor

    return config, convert


def _short(value: Any) -> Any:
    """A float32 of the file as the number that was meant: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _rename(name: str, blocks: dict[str, str]) -> str:
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name):
        layer, part, leaf = match.groups()
        if part in blocks:
            return f"model.layers.{layer}.{blocks[part]}.{leaf}"
    elif match := re.fullmatch(r"(\w+)\.(weight|bias)", name):
        part, leaf = match.groups()
        if part in _OUTER:
            return f"{_OUTER[part]}.{leaf}"
    return name


def _unpermute(heads: int, rows: np.ndarray) -> np.ndarray:
    """Undoes the converter's order: a head's rotated pairs side by side instead of in halves."""
    halves = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _common(fields: Fields, stored: dict[str, Tensor], architecture: str) -> dict[str, Any]:
    """Reads what all have in common."""
    heads = fields.get("attention.head_count")
    width = fields.get("embedding_length")
    head_dim = fields.get("attention.key_length", width // heads)
    fields.expect("attention.value_length", head_dim)
    fields.expect("rope.dimension_count", head_dim)
    fields.expect("expert_count", 0)
    fields.expect("expert_used_count", 0)
    if "token_embd.weight" not in stored:
        raise UserError("the GGUF file has no token_embd.weight")
    fields.ignore("vocab_size")  # the tokenizer's; the embedding may have more rows
    return {
        "architectures": [architecture],
        "vocab_size": stored["token_embd.weight"].shape[0],
        "hidden_size": width,
        "num_hidden_layers": fields.get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": fields.get("feed_forward_length"),
        "max_position_embeddings": fields.get("context_length"),
        "rms_norm_eps": fields.get("attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.get("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in stored,
    }


def _linear_scaling(fields: Fields) -> dict[str, Any]:
    kind = fields.get("rope.scaling.type", "none")
    factor = fields.get("rope.scaling.factor", 1.0)
    fields.ignore("rope.scaling.original_context_length", "rope.scaling.finetuned")
    if kind not in ("none", "linear"):
        raise UserError(f"the GGUF's metadata has rope.scaling.type={kind!r}: not implemented")
    return {"rope_scaling": {"rope_type": "linear", "factor": factor}} if kind == "linear" else {}


def _llama(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {
        **_common(fields, stored, "LlamaForCausalLM"),
        **_linear_scaling(fields),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in stored,
        "mlp_bias": "blk.0.ffn_gate.bias" in stored,
    }
    if _ROPE_FACTORS in stored:
        factors = stored.pop(_ROPE_FACTORS).read_rows(0, config["head_dim"] // 2)
        config["rope_scaling"] = _llama3_scaling(factors, config)
    return config


def _llama3_scaling(factors: np.ndarray, config: dict[str, Any]) -> dict[str, Any]:
    """Finds the Llama 3 scaling whose frequency divisors, all that the file keeps, are these."""
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    head_dim = config["head_dim"]
    frequency = config["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequency / (2 * np.pi)
    smooth = np.clip((turns - 1.0) / (4.0 - 1.0), 0.0, 1.0)
    expected = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    if not np.allclose(factors, expected, rtol=1e-3):
        raise UserError(f"{_ROPE_FACTORS} holds another scaling than that of Llama 3.1 to 3.3")
    return scaling


def _qwen2(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {**_common(fields, stored, "Qwen2ForCausalLM"), **_linear_scaling(fields)}
    # The architecture has no field for another width of a head.
    if config.pop("head_dim") * config["num_attention_heads"] != config["hidden_size"]:
        raise UserError("the GGUF's metadata has attention.key_length: not implemented for qwen2")
    return {**config, "hidden_act": "silu"}


def _qwen3(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    return {
        **_common(fields, stored, "Qwen3ForCausalLM"),
        **_linear_scaling(fields),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in stored,
    }


def _gemma(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = _common(fields, stored, "GemmaForCausalLM")
    return {**config, **_linear_scaling(fields), "hidden_act": "gelu_pytorch_tanh"}


def _gemma2(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {**_common(fields, stored, "Gemma2ForCausalLM"), **_linear_scaling(fields)}
    return {
        **config,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(config, layers_of_27b=46),
        "sliding_window": fields.get("attention.sliding_window"),
        "attn_logit_softcapping": fields.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": fields.get("final_logit_softcapping", 30.0),
    }


def _gemma3(fields: Fields, stored: dict[str, Tensor]) -> dict[str, Any]:
    config = {**_common(fields, stored, "Gemma3ForCausalLM"), **_linear_scaling(fields)}
    fields.ignore("mm.tokens_per_image")  # of the vision tower, which is a file of its own
    return {
        **config,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(config, layers_of_27b=62),
        "sliding_window": fields.get("attention.sliding_window"),
        "sliding_window_pattern": fields.get("attention.sliding_window_pattern", 6),
        "rope_local_base_freq": fields.get("rope.freq_base_swa", 10_000.0),
        "final_logit_softcapping": fields.get("final_logit_softcapping", None),
    }


def _query_scalar(config: dict[str, Any], layers_of_27b: int) -> int:
    """Divisor of attention scores, squared. The file does not keep it; llama.cpp knows the models.

    The 27B models, which it tells by their number of layers, use the share of the width that a
    head has, all others the width of a head.
    """
    if config["num_hidden_layers"] == layers_of_27b:
        return config["hidden_size"] // config["num_attention_heads"]
    return config["head_dim"]


_ARCHITECTURES = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}
