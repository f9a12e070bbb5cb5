"""The rules' closed forms in float64 numpy, one position at a time; and inputs for them."""

import json
import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speccascade.rules import RULES, Distributions
from tests import toy_head

BATCH, VOCAB = 10, 6
TOKEN_RULES = ("token_v1", "token_v2", "token_v3", "bild", "typical", "topk_relaxed")
# Rules whose decisions are exact in float32 when every number is a multiple of 1/64.
EXACT = ("chow", "diff", "opt", "token_v1", "token_v2", "token_v3", "topk_relaxed")

# ---- the oracle ----


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def tv(q, p):
    return sum(max(0.0, a - b) for a, b in zip(q, p, strict=True))


def learned_gain(path, q, p, q1, p1):
    """Returns how many more right tokens, to a head, a draw from p holds than one from q."""
    with open(path) as file:
        head = {name: np.array(x) for name, x in json.load(file).items() if name != "notes"}
    drafted, best = q1.argmax(), p1.argmax()
    x = np.array(
        [
            *(max(q1), max(p1), entropy(q1), entropy(p1), tv(q1, p1)),
            *(p1[drafted], q1[best], drafted == best),
        ]
    )
    hidden = np.tanh(
        (x - head["mean"]) / head["scale"] @ head["hidden_weight"] + head["hidden_bias"]
    )
    drafter, expert = 1 / (1 + np.exp(-(hidden @ head["output_weight"] + head["output_bias"])))
    worth = np.zeros(len(q))  # how probably a token is right
    worth[drafted] = drafter
    worth[best] = expert
    return p @ worth - q @ worth


def deferral(name, k, q, p, q1, p1):
    """Returns r `[V]` and how near the nearest decision was to turning over."""
    alpha = k.get("alpha")
    everywhere = np.ones(len(q))
    by_rule = {
        # What is compared, as (smaller, larger): the expert is asked where it is smaller, strictly.
        "chow": lambda: (max(q1) * everywhere, 1 - alpha),
        "chowlog": lambda: (alpha * everywhere, entropy(q1)),
        "diff": lambda: (max(q1) * everywhere, max(p1) - alpha),
        "opt": lambda: (max(q1) * everywhere, max(p1) - alpha * tv(q, p)),
        "optlog": lambda: (entropy(p1) + alpha * tv(q, p) * everywhere, entropy(q1)),
        "token_v1": lambda: (q1, max(p1) - alpha),
        "token_v2": lambda: (p1, max(p1) - alpha),
        "token_v3": lambda: (p1, (1 - alpha) * max(p1)),
        "learned": lambda: (
            alpha * tv(q, p) * everywhere,
            learned_gain(k["head"], q, p, q1, p1),
        ),
        "typical": lambda: (p1, min(alpha, math.sqrt(alpha) * math.exp(-entropy(p1)))),
    }
    if name == "bild":
        edge = math.exp(min(-alpha, 700.0))
        falls_back = max(q1) < k["fallback"]
        r = (p1 < edge) | falls_back
        return r, min(np.abs(p1 - edge).min(), abs(max(q1) - k["fallback"]))
    if name == "topk_relaxed":
        kth = sorted(p1, reverse=True)[min(k["k"], len(p1)) - 1]
        edge = max(p1) - alpha
        return (p1 < kth) | (p1 < edge), np.abs(p1 - edge).min()
    if name not in by_rule:
        raise NotImplementedError(
            f"tests/rule_oracle.py has no closed form of the rule {name!r}: add what it compares "
            "to by_rule in deferral(), and its name to TOKEN_RULES if it decides token by token; "
            "or, if it defers nothing, its pi to oracle()"
        )
    smaller, larger = by_rule[name]()
    return smaller < larger, np.abs(smaller - larger).min()


def oracle(name, k, q, p, q1, p1):
    """Returns pi `[V]`, the deferred mass (NaN for none) and the margin of the decisions."""
    alpha = k.get("alpha")
    if name in ("spec", "expert"):
        return p, math.nan, 1.0
    if name == "drafter":
        return q, math.nan, 1.0
    if name == "mixture":
        return (1 - alpha) * p + alpha * q, math.nan, 1.0
    if name == "lossy":
        low, (a, b) = np.minimum(q, p / (1 - alpha)), (0.0, 1 / (1 - alpha))
        for _ in range(200):
            t = (a + b) / 2
            a, b = (t, b) if np.maximum(low, t * p).sum() < 1 else (a, t)
        return np.maximum(low, b * p), math.nan, 1.0
    if name == "lenient":
        accepted, residual = np.minimum(q, p / (1 - alpha)), np.maximum(p - q, 0)
        residual = residual / residual.sum() if residual.sum() > 0 else p
        return accepted + (1 - accepted.sum()) * residual, math.nan, 1.0
    r, margin = deferral(name, k, q, p, q1, p1)
    if name in TOKEN_RULES:
        pi = q * (1 - r) + p * (r * q).sum()
    else:
        pi = (1 - r) * q + r * p
    return pi, (r * q).sum(), margin


def targets(name, knobs, q, p, q1, p1):
    """Returns pi `[C, V]` and the deferred mass `[C]` of tables `[C, V]`."""
    rows = zip(q, p, q1, p1, strict=True)
    pi, deferred, _ = zip(*(oracle(name, knobs, *row) for row in rows), strict=True)
    return np.array(pi), np.array(deferred)


# ---- inputs ----


def alphas_of(name):
    """A strategy for alpha: anything in the rule's domain, its edges and values beside them."""
    knob = RULES[name].knobs["alpha"]
    low, high = max(knob.low, -1.25), min(knob.high, 2.5)
    if knob.open_high:
        high = 1 - 2**-6
    beside = (low, high, -0.01, -1 / 64, 0.0, 1 / 64, 63 / 64, 1.0, 1.01)
    edges = [x for x in beside if low <= x <= high]
    ends = [end["alpha"] for end in (RULES[name].drafter_at, RULES[name].expert_at) if end]
    grid = st.integers(math.ceil(low * 64), math.floor(high * 64)).map(lambda x: x / 64)
    return st.sampled_from(edges + ends) | grid | st.floats(low, high, width=32)


@st.composite
def batches(draw):
    """Distributions [B, V] four times: positions of every kind, with zeros, ties and equals.

    Half of the rows hold multiples of 1/64; the others are softmaxes with tails below an ulp of 1.
    """
    cuts = draw(
        hnp.arrays(
            np.int8, (BATCH // 2, 4, VOCAB - 1), elements=st.integers(0, 64), fill=st.nothing()
        )
    )
    edges = np.sort(cuts, -1).astype(np.float64)
    d = np.diff(edges, axis=-1, prepend=0, append=64) / 64
    logits = draw(
        hnp.arrays(
            np.int8, (BATCH // 2, 4, VOCAB), elements=st.integers(-16, 16), fill=st.nothing()
        )
    )
    weights = np.exp(logits - logits.max(-1, keepdims=True, initial=-16).astype(np.float64))
    d = np.concatenate([d, weights / weights.sum(-1, keepdims=True)])
    q, p, q1, p1 = np.moveaxis(d, 1, 0)
    kinds = draw(hnp.arrays(np.int8, (BATCH, 2), elements=st.integers(0, 5), fill=st.nothing()))
    for row in range(BATCH):
        for sampled, at_one, other, kind in zip(
            (q, p), (q1, p1), (p1, q1), kinds[row], strict=True
        ):
            probs = at_one[row]
            if kind == 1:  # at temperature 1
                sampled[row] = probs
            elif kind == 2:  # greedy
                sampled[row] = np.arange(VOCAB) == probs.argmax()
            elif kind == 3:  # truncated
                sampled[row] = np.where(probs >= np.sort(probs)[-2], probs, 0)
                sampled[row] /= sampled[row].sum()
            elif kind == 4:  # both models are one
                at_one[row] = other[row]
            elif kind == 5:
                sampled[row] = (p if sampled is q else q)[row]
    special = draw(st.integers(0, 3))
    if special == 1:
        q[0], p[0], q1[0], p1[0] = np.full((4, VOCAB), 1 / VOCAB)
    elif special == 2:
        q[0] = p[0] = q1[0] = p1[0] = np.arange(VOCAB) == 2
    elif special == 3:
        q[0] = p[0] = q1[0] = p1[0] = d[1, 0]
    return Distributions(*(x.astype(np.float32) for x in (q, p, q1, p1)))


@st.composite
def knobs_of(draw, name):
    """Knobs [B] (static ones a number) within the rule's domain."""
    row = RULES[name]
    knobs = toy_head.knobs_of(row)
    if "alpha" in row.knobs:
        few = draw(st.lists(alphas_of(name), min_size=4, max_size=4))
        knobs["alpha"] = np.resize(np.float32(few), BATCH)
    if "fallback" in row.knobs:
        values = st.sampled_from([0.0, 0.25, 0.6, 0.75, 1.0, 2.0])
        few = draw(st.lists(values, min_size=3, max_size=3))
        knobs["fallback"] = np.resize(np.float32(few), BATCH)
    if "k" in row.knobs:
        knobs["k"] = draw(st.sampled_from([1, 2, 5, 7]))
    return knobs


def take(knobs, row):
    return {key: x if np.ndim(x) == 0 else x[row].item() for key, x in knobs.items()}


def is_exact(name, d, k, row):
    multiples = [*np.concatenate([x[row] for x in d]) * 64, k.get("alpha", 0) * 64]
    return name in EXACT and all(x == round(x) for x in multiples) and abs(k["alpha"]) < 100
