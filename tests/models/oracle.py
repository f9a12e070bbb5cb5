"""The whole transformer in float64 numpy, one position and one head at a time."""

import math

import numpy as np


def _norm(x, scale, eps):
    return x / math.sqrt(sum(v * v for v in x) / len(x) + eps) * scale


def _rotate(x, position, base):
    half = len(x) // 2
    out = np.empty_like(x)
    for j in range(half):
        angle = position / base ** (j / half)
        a, b = x[j], x[j + half]
        out[j] = a * math.cos(angle) - b * math.sin(angle)
        out[j + half] = a * math.sin(angle) + b * math.cos(angle)
    return out


def _cap(x, cap):
    return x if cap is None else cap * np.tanh(x / cap)


def _activate(name, x):
    if name == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _feed_forward(config, x, gate, up, down):
    return down @ (_activate(config.activation, gate @ x) * (up @ x))


def logits(config, params, tokens) -> np.ndarray:
    """Returns `[T, V]` for one sequence of T tokens."""
    c, width = config, config.head_dim
    group = c.num_heads // c.num_kv_heads

    def weight(*path):
        leaf = params
        for key in path:
            leaf = leaf[key]
        return np.asarray(leaf, np.float64)

    scale = math.sqrt(c.d_model) if c.scale_embeddings else 1.0
    stream = [weight("embedding")[token] * scale for token in tokens]
    for i in range(c.num_layers):
        slides = c.window is not None and c.window_pattern[i % len(c.window_pattern)]
        norm, attention = weight(f"attention_norm_{i}", "scale"), f"attention_{i}"
        keys, values = [], []
        for t in range(len(tokens)):
            x = _norm(stream[t], norm, c.norm_eps)
            query = weight(attention, "query", "weight") @ x
            key = weight(attention, "key", "weight") @ x
            value = weight(attention, "value", "weight") @ x
            keys.append([_rotate(k, t, c.rope_base) for k in key.reshape(-1, width)])
            values.append(value.reshape(-1, width))
            heads = []
            for h, q in enumerate(query.reshape(-1, width)):
                q = _rotate(q, t, c.rope_base)
                first = max(0, t - c.window + 1) if slides else 0
                seen = range(first, t + 1)
                scores = [q @ keys[s][h // group] / math.sqrt(width) for s in seen]
                scores = _cap(np.array(scores), c.attn_softcap)
                share = np.exp(scores - scores.max())
                share /= share.sum()
                mixed = (w * values[s][h // group] for w, s in zip(share, seen, strict=True))
                heads.append(sum(mixed))
            stream[t] = stream[t] + weight(attention, "output", "weight") @ np.concatenate(heads)
        norm, mlp = weight(f"mlp_norm_{i}", "scale"), f"mlp_{i}"
        for t in range(len(tokens)):
            x = _norm(stream[t], norm, c.norm_eps)
            if c.layer_routing(i) is None:
                matrices = (weight(mlp, name, "weight") for name in ("gate", "up", "down"))
                stream[t] = stream[t] + _feed_forward(c, x, *matrices)
                continue
            scores = np.exp(weight(mlp, "router") @ x)
            chosen = np.argsort(-scores)[: c.routing.chosen]
            for e in chosen:  # the weights sum to one
                matrices = (weight(mlp, name)[e] for name in ("gate", "up", "down"))
                part = _feed_forward(c, x, *matrices)
                stream[t] = stream[t] + scores[e] / scores[chosen].sum() * part
    head = weight("embedding") if c.tie_embeddings else weight("head", "weight")
    norm = weight("final_norm", "scale")
    return np.stack([_cap(head @ _norm(x, norm, c.norm_eps), c.logit_softcap) for x in stream])
