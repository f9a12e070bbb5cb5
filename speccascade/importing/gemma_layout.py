"""Gemma 1, 2 and 3 as the library `gemma` keeps them, in Orbax folders.

Published ones are flat (`transformer/layer_0/attn/q_einsum`), what the library saves is nested
(`layer_0/attn/q_einsum/w`), what Kauldron trains lies below `params`. Names and shapes tell the
version and the sizes; what they do not tell is known of the sizes that were published.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from speccascade.importing.layout import Layout, Place, layers, shape
from speccascade.importing.stored_arrays import StoredArray, StoredArrays

EXAMPLE = "layer_0/attn/attn_vec_einsum/w"

_PREFIX = re.compile(r"(params/)?(transformer/)?")
_IGNORED = (
    r"(.*/)?(SigLiPFromPatches_0|vision_encoder)/.*",
    r"(.*/)?embedder/mm_.*",
    r"(opt_state|collections)/.*|step",  # Kauldron's
)
# Norms of a layer by their names in the Hugging Face layout.
_NORMS = {"input_layernorm": "pre_attention_norm", "post_attention_layernorm": "pre_ffw_norm"}
_NORMS_AROUND = {
    "input_layernorm": "pre_attention_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "pre_ffw_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_QK_NORMS = {"self_attn.q_norm": "attn/_query_norm", "self_attn.k_norm": "attn/_key_norm"}

# By width, the published sizes of version 2, and of 3: there with the context of each.
_GEMMA2 = (2304, 3584, 4608)
_GEMMA3 = {640: 32_768, 1152: 32_768, 2560: 131_072, 3840: 131_072, 5376: 131_072}
_OWN_SCALE = (4608, 5376)  # those whose scores are not scaled by the width of a head


def is_one(names: set[str]) -> bool:
    """Returns whether arrays of these names are a Gemma's, whole or in parts."""
    return any(re.match(r"layer_\d+/attn/", _own(name)) for name in names)


def read(found: StoredArrays) -> Layout:
    """Tells what a model is by its arrays.

    Raises:
      UserError: one is missing without which its sizes are not known.
    """
    stored = {_own(name): name for name in (*found.lost, *found.arrays)}
    arrays = {own: found.arrays[name] for own, name in stored.items() if name in found.arrays}
    config, unsaid = _config(arrays)
    version, width = config["model_type"], config["hidden_size"]
    norms = _NORMS if version == "gemma" else _NORMS_AROUND
    norms = {**norms, **(_QK_NORMS if version == "gemma3_text" else {})}
    places = []

    def place(name: str, own: str, rank: int, lay: Callable) -> None:
        places.append(Place(f"model.{name}.weight", stored.get(own, own), rank, lay))

    place("embed_tokens", "embedder/input_embedding", 2, np.asarray)
    place("norm", "final_norm/scale", 1, np.asarray)
    for i in range(config["num_hidden_layers"]):
        theirs, own = f"layers.{i}", f"layer_{i}"
        for name, norm in norms.items():
            place(f"{theirs}.{name}", f"{own}/{norm}/scale", 1, np.asarray)
        attention = f"{theirs}.self_attn"
        if f"{own}/attn/qkv_einsum/w" in stored:
            for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
                lay = functools.partial(_heads, index)
                place(f"{attention}.{name}", f"{own}/attn/qkv_einsum/w", 4, lay)
        else:
            place(f"{attention}.q_proj", f"{own}/attn/q_einsum/w", 3, functools.partial(_heads, ()))
            for index, name in enumerate(("k_proj", "v_proj")):
                lay = functools.partial(_heads, index)
                place(f"{attention}.{name}", f"{own}/attn/kv_einsum/w", 4, lay)
        place(f"{attention}.o_proj", f"{own}/attn/attn_vec_einsum/w", 3, _joined)
        for index, name in enumerate(("gate_proj", "up_proj")):
            lay = functools.partial(_one, width, index)
            place(f"{theirs}.mlp.{name}", f"{own}/mlp/gating_einsum", 3, lay)
        place(f"{theirs}.mlp.down_proj", f"{own}/mlp/linear", 2, np.transpose)
    return Layout(config, tuple(places), _IGNORED, unsaid)


def _own(name: str) -> str:
    """Returns an array's name as the library saves it today."""
    name = name[_PREFIX.match(name).end() :]
    return name.removesuffix("/w") if "/mlp/" in name else name


def _config(arrays: Mapping[str, StoredArray]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the fields of the config.json, and those that a model of no published size lacks."""
    attn = "layer_0/attn"
    vocab_size, width = shape(
        arrays, "embedder/input_embedding", 2, "the size of the vocabulary and the width"
    )
    if f"{attn}/qkv_einsum/w" in arrays:
        sizes = shape(arrays, f"{attn}/qkv_einsum/w", 4, "the number of heads and their width")
        (_, heads, _, head_dim), kv_heads = sizes, sizes[1]
    else:
        heads, _, head_dim = shape(
            arrays, f"{attn}/q_einsum/w", 3, "the number of heads and their width"
        )
        _, kv_heads, _, _ = shape(arrays, f"{attn}/kv_einsum/w", 4, "the number of key-value heads")
    d_ff, _ = shape(arrays, "layer_0/mlp/linear", 2, "the width of the feed-forward layers")
    config: dict[str, Any] = {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": d_ff,
        "num_hidden_layers": layers(arrays, "layer_"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    if "layer_0/post_attention_norm/scale" not in arrays:
        return config, ()
    config["query_pre_attn_scalar"] = width // heads if width in _OWN_SCALE else head_dim
    if "layer_0/attn/_query_norm/scale" not in arrays:
        config |= {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}
        return config, () if width in _GEMMA2 else ("query_pre_attn_scalar",)
    context = _GEMMA3.get(width, 0)
    longer = {"rope_type": "linear", "factor": 8.0} if context == 131_072 else {}
    config |= {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "max_position_embeddings": context,
        "sliding_window": 1024 if longer else 512,
        "rope_parameters": {"full_attention": {"rope_theta": 1e6, **longer}},
    }
    unsaid = "max_position_embeddings", "query_pre_attn_scalar", "rope_parameters", "sliding_window"
    return config, () if context else unsaid


def _heads(index: int | tuple[()], array: np.ndarray) -> np.ndarray:
    """Makes `[heads * head_dim, width]` of `[..., heads, width, head_dim]`."""
    turned = array[index].swapaxes(1, 2)
    return turned.reshape(-1, turned.shape[-1])


def _joined(array: np.ndarray) -> np.ndarray:
    """Makes `[width, heads * head_dim]` of `[heads, head_dim, width]`."""
    return array.reshape(-1, array.shape[-1]).T


def _one(width: int, index: int, array: np.ndarray) -> np.ndarray:
    """Makes `[d_ff, width]` of one of two, `[2, width, d_ff]` or, in later releases, turned."""
    return array[index].T if array.shape[1] == width else array[index]
