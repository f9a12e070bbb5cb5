"""Reads GGUF files: their tensors by their Hugging Face names.

What llama.cpp's converter changed is changed back, so that one architecture's plan serves both
formats: Llama's query and key rows are reordered there, Gemma's norm scales have one added.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from speccascade.errors import UserError
from speccascade.importing import gguf_metadata
from speccascade.importing.checkpoint import Checkpoint, Tensor
from speccascade.inputs import gguf_header
from speccascade.inputs.fields import Fields
from speccascade.inputs.gguf_header import TensorInfo
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


def read(path: pathlib.Path) -> tuple[dict[str, Any], Checkpoint, Tokenizer]:
    """Reads the metadata and the vocabulary and lists the tensors.

    Returns:
      The fields of the config.json that the same model has in the Hugging Face layout, the
      tensors, and the tokenizer.

    Raises:
      UserError: the file is damaged, or its architecture or something in its metadata is unknown.
    """
    header = gguf_header.read(path)
    if Fields(header.metadata, str(path)).integer("split.count", 1) > 1:
        raise UserError(f"{path} is one of several parts; merge them with llama-gguf-split")
    stored = {}
    for tensor in header.tensors:
        read_rows = functools.partial(_read_rows, path, tensor)
        readable = tensor.kind in READABLE
        stored[tensor.name] = Tensor(tensor.shape, tensor.kind, read_rows if readable else None)
    architecture, config = gguf_metadata.read(header.metadata, stored, str(path))
    convert = _renaming(architecture, config)
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


def _renaming(architecture: str, config: Mapping[str, Any]):
    """Returns the function that renames and restores one tensor."""
    blocks = {**_BLOCK, **(_POST_NORMS if architecture in ("gemma2", "gemma3") else {})}

    def convert(item: tuple[str, Tensor]) -> tuple[str, Tensor]:
        old, tensor = item
        new = _rename(old, blocks)
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
        part = old.split(".")[2] if old.startswith("blk.") and old.count(".") == 3 else ""
        if architecture == "llama" and part in heads:
            restore = functools.partial(_unpermute, config[heads[part]])
            return new, dataclasses.replace(tensor, restore=restore)
        if architecture.startswith("gemma") and new.endswith("norm.weight"):
            return new, dataclasses.replace(tensor, restore=lambda scale: scale - np.float32(1))
        return new, tensor

    return convert


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
