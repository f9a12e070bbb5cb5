"""The T5 of T5X's `examples/t5`: v1.0, v1.1, the LM-adapted ones and Flan-T5.

Its kernels are `[in, out]`, heads side by side; its positions `[heads, buckets]`. What no shape
tells is as in every published one: a gated layer is of GELU, the farthest bucket begins at 128.
"""

from typing import Any

import numpy as np

from speccascade.importing.layout import Layout, Place, layers, shape
from speccascade.importing.stored_arrays import StoredArrays

EXAMPLE = "target/encoder/encoder_norm/scale"

_EMBEDDING = "target/token_embedder/embedding"
_HEAD = "target/decoder/logits_dense/kernel"
_POSITIONS = "target/{}/relpos_bias/rel_embedding"
# By stack: each sublayer's norm and its name, here and in the Hugging Face layout.
_SUBLAYERS = {
    "encoder": (
        ("pre_attention_layer_norm", "attention", "SelfAttention"),
        ("pre_mlp_layer_norm", "mlp", "DenseReluDense"),
    ),
    "decoder": (
        ("pre_self_attention_layer_norm", "self_attention", "SelfAttention"),
        ("pre_cross_attention_layer_norm", "encoder_decoder_attention", "EncDecAttention"),
        ("pre_mlp_layer_norm", "mlp", "DenseReluDense"),
    ),
}
_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}


def is_one(names: set[str]) -> bool:
    """Returns whether arrays of these names are a T5X model's, whole or in parts."""
    return any(name.startswith(("target/encoder/", "target/decoder/")) for name in names)


def read(found: StoredArrays) -> Layout:
    """Tells what a model is by its arrays.

    Raises:
      UserError: one is missing without which its sizes are not known.
    """
    arrays = found.arrays
    vocab_size, width = shape(arrays, _EMBEDDING, 2, "the size of the vocabulary and the width")
    positions = _POSITIONS.format("encoder")
    heads, buckets = shape(arrays, positions, 2, "the number of heads and of buckets")
    query = "target/encoder/layers_0/attention/query/kernel"
    _, joined = shape(arrays, query, 2, "the width of a head")
    gated = "target/encoder/layers_0/mlp/wi_0/kernel" in arrays
    up = f"target/encoder/layers_0/mlp/{'wi_0' if gated else 'wi'}/kernel"
    _, d_ff = shape(arrays, up, 2, "the width of the feed-forward layers")
    config: dict[str, Any] = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": vocab_size,
        "d_model": width,
        "d_kv": joined // heads,
        "d_ff": d_ff,
        "num_heads": heads,
        "num_layers": layers(arrays, "target/encoder/layers_"),
        "num_decoder_layers": layers(arrays, "target/decoder/layers_"),
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "relative_attention_num_buckets": buckets,
        "tie_word_embeddings": _HEAD not in arrays,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
    }
    mlp = {name: name for name in (("wi_0", "wi_1", "wo") if gated else ("wi", "wo"))}
    places = [Place("shared.weight", _EMBEDDING, 2, np.asarray)]
    if _HEAD in arrays:
        places.append(_kernel("lm_head.weight", _HEAD))
    for stack, sublayers in _SUBLAYERS.items():
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        places += [
            _kernel(bias, _POSITIONS.format(stack)),
            _scale(f"{stack}.final_layer_norm.weight", f"target/{stack}/{stack}_norm"),
        ]
        for i in range(config["num_layers" if stack == "encoder" else "num_decoder_layers"]):
            ours = f"target/{stack}/layers_{i}"
            for j, (norm, part, their_part) in enumerate(sublayers):
                theirs = f"{stack}.block.{i}.layer.{j}"
                names = mlp if part == "mlp" else _ATTENTION
                places.append(_scale(f"{theirs}.layer_norm.weight", f"{ours}/{norm}"))
                for own, their in names.items():
                    name = f"{theirs}.{their_part}.{their}.weight"
                    places.append(_kernel(name, f"{ours}/{part}/{own}/kernel"))
    return Layout(config, tuple(places), (r"(?!target/).*",))  # not the optimizer's state


def _kernel(name: str, stored: str) -> Place:
    return Place(name, stored, 2, np.transpose)


def _scale(name: str, norm: str) -> Place:
    return Place(name, f"{norm}/scale", 1, np.asarray)
