"""A tiny Llama checkpoint in the Hugging Face layout, written without any other library's help."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

from speccascade import text

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 260,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
    "torch_dtype": "float32",
}
SHAPES = {
    "model.embed_tokens.weight": (260, 16),
    "model.norm.weight": (16,),
    "lm_head.weight": (260, 16),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(2)
        for name, shape in {
            "input_layernorm": (16,),
            "post_attention_layernorm": (16,),
            "self_attn.q_proj": (16, 16),
            "self_attn.k_proj": (8, 16),
            "self_attn.v_proj": (8, 16),
            "self_attn.o_proj": (16, 16),
            "mlp.gate_proj": (24, 16),
            "mlp.up_proj": (24, 16),
            "mlp.down_proj": (16, 24),
        }.items()
    },
}
# Some of the parameters that they become.
KEYS = {
    "embedding": "model.embed_tokens.weight",
    "head/weight": "lm_head.weight",
    "final_norm/scale": "model.norm.weight",
    "attention_1/key/weight": "model.layers.1.self_attn.k_proj.weight",
    "mlp_0/down/weight": "model.layers.0.mlp.down_proj.weight",
    "mlp_norm_1/scale": "model.layers.1.post_attention_layernorm.weight",
}


def tensors(dtype=np.float32, shapes=SHAPES) -> dict[str, np.ndarray]:
    """Returns random tensors."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write(folder: pathlib.Path, weights=None, shards: int = 1, **changes) -> pathlib.Path:
    """Writes a checkpoint.

    Args:
      folder: made here.
      weights: its tensors; by default `tensors()`.
      shards: over how many files they are spread.
      **changes: fields of its config.json; None leaves one out.
    """
    folder.mkdir(parents=True)
    config = {k: v for k, v in {**CONFIG, **changes}.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(config))
    weights = tensors() if weights is None else weights
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        files = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
        shard_of = {name: files[n % shards] for n, name in enumerate(weights)}
        for file in files:
            part = {name: weights[name] for name in weights if shard_of[name] == file}
            save_file(part, folder / file)
        index = {"metadata": {}, "weight_map": shard_of}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    text.train(["a tiny text"], 258).save(folder)
    return folder
