"""Distributions drawn at random, as a workdir keeps them and as another engine would."""

import numpy as np

from speccascade.workdir import distributions


def log_softmax(logits):
    x = logits - logits.max(-1, keepdims=True)
    return (x - np.log(np.exp(x).sum(-1, keepdims=True))).astype(np.float32)


def draw(rng, count=6, size=12, spread=2.0, apart=1.0):
    """Returns log-probabilities of drafter and expert, float32 [count, size] each."""
    q = rng.normal(size=(count, size)) * spread
    return log_softmax(q), log_softmax(q + rng.normal(size=(count, size)) * apart)


def row(models, top=None, more=True, tokens=None, **fields):
    """Returns a row of distributions.

    Args:
      models: log-probabilities of drafter and expert.
      top: None for whole ones.
      more: whether each model is listed at the tokens of both, with the rest's mass and the
        entropy; else each at its own, and nothing else.
      tokens: what stands there.
      **fields: other values.
    """
    count, size = models[0].shape
    found = {"id": 0, "vocab_size": size, "tokens": tokens or [0] * count}
    if top is None:
        own = [distributions.whole_fields(x) for x in models]
    else:
        found["top"] = top
        best = [[set(np.argsort(-x)[:top].tolist()) for x in model] for model in models]
        both = [a | b for a, b in zip(*best, strict=True)]
        own = [
            _listed(model, both if more else alone)
            for model, alone in zip(models, best, strict=True)
        ]
        if not more:
            own = [{name: x[name] for name in ("ids", "logprobs")} for x in own]
    return {**found, **dict(zip(distributions.MODELS, own, strict=True)), **fields}


def _listed(model, ids):
    ids = [sorted(row) for row in ids]
    probs = np.exp(model.astype(np.float64))
    rest = [np.delete(p, i).sum() for p, i in zip(probs, ids, strict=True)]
    return distributions.listed_fields(
        ids,
        [x[i] for x, i in zip(model, ids, strict=True)],
        rest,
        -(probs * model).sum(1),
        model.argmax(1),
    )
