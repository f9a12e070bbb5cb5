"""Gemma as the library `gemma` computes it, in NumPy, from its own arrays and einsums.

What is followed is its `gm/nn/_modules.py` and `_layers.py`: names, shapes and equations.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A small model, by the names of the library's `TransformerConfig`.

    Attributes:
      version: 1, 2 or 3.
      local: which layers slide.
      num_kv_heads: where it is `num_heads`, queries, keys and values lie in one array.
      transpose_gating_einsum: whether the gate is `[2, hidden, embed]`.
    """

    version: int
    local: tuple[bool, ...] = (False, False)
    num_embed: int = 390
    embed_dim: int = 16
    hidden_dim: int = 20
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 6
    transpose_gating_einsum: bool = False
    sliding_window_size: int = 3
    query_pre_attn_scalar: float = 6**-0.5
    attn_logits_soft_cap: float | None = None
    final_logit_softcap: float | None = None
    local_base_frequency: float = 10_000.0
    global_base_frequency: float = 10_000.0
    global_scale_factor: float = 1.0


def arrays(sizes: Sizes) -> dict[str, np.ndarray]:
    """Returns random parameters by their names, "layer_0/attn/q_einsum/w"."""
    rng = np.random.default_rng(sizes.version)
    s, found = sizes, {}

    def normal(name, *shape):
        found[name] = rng.standard_normal(shape, np.float32)

    normal("embedder/input_embedding", s.num_embed, s.embed_dim)
    normal("final_norm/scale", s.embed_dim)
    gate = (s.embed_dim, s.hidden_dim)
    for i in range(len(s.local)):
        layer = f"layer_{i}"
        if s.num_kv_heads == s.num_heads:
            normal(f"{layer}/attn/qkv_einsum/w", 3, s.num_heads, s.embed_dim, s.head_dim)
        else:
            normal(f"{layer}/attn/q_einsum/w", s.num_heads, s.embed_dim, s.head_dim)
            normal(f"{layer}/attn/kv_einsum/w", 2, s.num_kv_heads, s.embed_dim, s.head_dim)
        normal(f"{layer}/attn/attn_vec_einsum/w", s.num_heads, s.head_dim, s.embed_dim)
        normal(f"{layer}/mlp/gating_einsum", 2, *gate[:: -1 if s.transpose_gating_einsum else 1])
        normal(f"{layer}/mlp/linear", s.hidden_dim, s.embed_dim)
        norms = ["pre_attention_norm", "pre_ffw_norm"]
        norms += ["post_attention_norm", "post_ffw_norm"] if s.version > 1 else []
        for norm in norms:
            normal(f"{layer}/{norm}/scale", s.embed_dim)
        for norm in ("_query_norm", "_key_norm") if s.version > 2 else ():
            normal(f"{layer}/attn/{norm}/scale", s.head_dim)
    return found


def logits(sizes: Sizes, params: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Scores texts `[B, T]`: float64 `[B, T, V]`."""
    params = {name: value.astype(np.float64) for name, value in params.items()}
    table = params["embedder/input_embedding"]
    x = table[tokens] * sizes.embed_dim**0.5
    for i in range(len(sizes.local)):
        own = {
            name.removeprefix(f"layer_{i}/"): value
            for name, value in params.items()
            if name.startswith(f"layer_{i}/")
        }
        y = _attention(sizes, own, _norm(x, own["pre_attention_norm/scale"]), sizes.local[i])
        if "post_attention_norm/scale" in own:
            y = _norm(y, own["post_attention_norm/scale"])
        x = x + y
        y = _feed_forward(sizes, own, _norm(x, own["pre_ffw_norm/scale"]))
        if "post_ffw_norm/scale" in own:
            y = _norm(y, own["post_ffw_norm/scale"])
        x = x + y
    scores = _norm(x, params["final_norm/scale"]) @ table.T
    cap = sizes.final_logit_softcap
    return scores if cap is None else np.tanh(scores / cap) * cap


def _norm(x, scale):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * (1 + scale)


def _rope(x, base, factor):
    half = x.shape[-1] // 2
    timescale = base ** (2 / x.shape[-1] * np.arange(half))
    angle = np.arange(x.shape[1])[None, :, None, None] / timescale / factor
    first, second = np.split(x, 2, axis=-1)
    sin, cos = np.sin(angle), np.cos(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _attention(sizes, own, x, slides):
    if "attn/qkv_einsum/w" in own:
        query, key, value = np.einsum("BTD,SNDH->SBTNH", x, own["attn/qkv_einsum/w"])
    else:
        query = np.einsum("BTD,NDH->BTNH", x, own["attn/q_einsum/w"])
        key, value = np.einsum("BSD,CKDH->CBSKH", x, own["attn/kv_einsum/w"])
    if "attn/_query_norm/scale" in own:
        query = _norm(query, own["attn/_query_norm/scale"])
        key = _norm(key, own["attn/_key_norm/scale"])
    base = sizes.local_base_frequency if slides else sizes.global_base_frequency
    factor = 1.0 if slides else sizes.global_scale_factor
    query = _rope(query, base, factor) * sizes.query_pre_attn_scalar
    key = _rope(key, base, factor)
    batch, length, heads, width = query.shape
    query = query.reshape(batch, length, key.shape[2], -1, width)
    scores = np.einsum("BTKGH,BSKH->BTKGS", query, key)
    if (cap := sizes.attn_logits_soft_cap) is not None:
        scores = np.tanh(scores / cap) * cap
    behind = np.arange(length)[:, None] - np.arange(length)
    seen = (behind >= 0) & ((behind < sizes.sliding_window_size) | (not slides))
    scores = np.where(seen[None, :, None, None], scores, -np.inf)
    probs = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probs /= probs.sum(axis=-1, keepdims=True)
    encoded = np.einsum("BTKGS,BSKH->BTKGH", probs, value).reshape(batch, length, heads, width)
    return np.einsum("BTNH,NHD->BTD", encoded, own["attn/attn_vec_einsum/w"])


def _feed_forward(sizes, own, x):
    equation = "...F,NHF->N...H" if sizes.transpose_gating_einsum else "...F,NFH->N...H"
    gate, up = np.einsum(equation, x, own["mlp/gating_einsum"])
    gelu = 0.5 * gate * (1 + np.tanh((2 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
    return gelu * up @ own["mlp/linear"]
