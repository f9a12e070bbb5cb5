"""Acceptance kernels as the engines' own loops run them: one row at a time, in plain Python.

Each function takes a drafted block of one row, `q`, `p` and `p1` as lists of lists, the row's
number, the uniforms, and knobs by name. It returns how many draft tokens are kept, the weights of
the token behind them, and the number after the kept ones. Written from the sources that the
kernels' docstrings name, and not from the kernels.
"""

import math


def greedy(probs):
    """Returns weights with all mass on the first of the largest."""
    best = max(range(len(probs)), key=lambda v: (probs[v], -v))
    return [float(v == best) for v in range(len(probs))]


def without(probs, token):
    """Returns the weights without a token; the whole where nothing else has mass."""
    rest = [0.0 if v == token else weight for v, weight in enumerate(probs)]
    return rest if sum(rest) > 0 else list(probs)


def _is_typical(p, token, epsilon, delta):
    entropy = -sum(x * math.log(x + 1e-5) for x in p)
    return p[token] > min(epsilon, delta * math.exp(-entropy))


def medusa_typical(draft, q, p, p1, carry, uniforms, *, epsilon, delta):
    kept = 0
    while kept < len(draft) and _is_typical(p[kept], draft[kept], epsilon, delta):
        kept += 1
    return kept, greedy(p[kept]), carry


def vllm_typical(draft, q, p, p1, carry, uniforms, *, epsilon, delta):
    kept = 0
    while kept < len(draft) and _is_typical(p[kept], draft[kept], epsilon, delta):
        kept += 1
    return kept, list(p[kept]) if kept == len(draft) else greedy(p[kept]), carry


def sglang_threshold(draft, q, p, p1, carry, uniforms, *, threshold_single, threshold_acc):
    for i, token in enumerate(draft):
        prob = p[i][token]
        coin_says = uniforms[i] < prob / max(threshold_acc, 1e-9)
        if not (coin_says or prob >= threshold_single):
            return i, without(p[i], token), carry
    return len(draft), list(p[len(draft)]), carry


def trtllm_relaxed(draft, q, p, p1, carry, uniforms, *, delta, k, begin, end):
    kept, thinking = 0, carry
    for i, token in enumerate(draft):
        ranked = sorted(range(len(p1[i])), key=lambda v: (-p1[i][v], v))[:k]
        floor = p1[i][ranked[0]] - (delta if carry else 0.0)
        if token not in [v for j, v in enumerate(ranked) if j == 0 or not floor > p1[i][v]]:
            break
        kept += 1
        thinking = {begin: 1.0, end: 0.0}.get(token, thinking)
    return kept, greedy(p1[kept]), thinking


def vllm_relaxed(draft, q, p, p1, carry, uniforms, *, ratio, k, begin, end):
    kept, thinking = 0, carry
    for i, token in enumerate(draft):
        ranked = sorted(range(len(p1[i])), key=lambda v: (-p1[i][v], v))[:k]
        relaxed = [v for v in ranked if p1[i][v] >= ratio * p1[i][ranked[0]]]
        if token not in (relaxed if thinking else ranked[:1]):
            break
        kept += 1
        thinking = {begin: 1.0, end: 0.0}.get(token, thinking)
    return kept, greedy(p1[kept]), thinking


def fly(draft, q, p, p1, carry, uniforms, *, theta, window):
    size = len(draft)
    # One of two samples is the draft with 1 - (1 - p)^2.
    match = [uniforms[i] < 1 - (1 - p[i][draft[i]]) ** 2 for i in range(size)]
    accepted = list(match)
    for i in range(size - window):
        if not match[i] and all(match[i + 1 : i + window]):
            top = sorted(p1[i])[-3:]
            entropy = -sum(x * math.log(x) for x in top if x > 0)
            accepted[i] = not (theta > 0.01 and entropy < theta)
    kept = accepted.index(False) if False in accepted else size
    return kept, list(p[size]) if kept == size else without(p[kept], draft[kept]), carry


def asd(draft, q, p, p1, carry, uniforms, *, budget, per_value, most):
    spent, misses, kept = carry, 0, 0
    for i, token in enumerate(draft):
        if greedy(p1[i])[token] == 0:
            if min(budget, per_value, most) == 0 or p1[i][token] == 0:
                break
            regret = max(math.log(x) for x in p1[i] if x > 0) - math.log(p1[i][token])
            misses += 1
            if regret / (len(draft) - i) > per_value or misses > most or spent + regret > budget:
                break
            spent += regret
        kept += 1
    return kept, greedy(p1[kept]), spent


def cactus(draft, q, p, p1, carry, uniforms, *, delta):
    for i, token in enumerate(draft):
        own = p[i][token]
        h = min(1.0, own + math.sqrt(2 * delta * own * (1 - own)))
        if not uniforms[i] * q[i][token] < h:
            scale = (1 - h) / (1 - own) if own < 1 else 1.0
            target = [h if v == token else x * scale for v, x in enumerate(p[i])]
            weights = [max(0.0, x - y) for x, y in zip(target, q[i], strict=True)]
            return i, weights if sum(weights) > 0 else list(p[i]), carry
    return len(draft), list(p[len(draft)]), carry


KERNELS = {
    f.__name__: f
    for f in (
        medusa_typical,
        vllm_typical,
        sglang_threshold,
        trtllm_relaxed,
        vllm_relaxed,
        fly,
        asd,
        cactus,
    )
}
