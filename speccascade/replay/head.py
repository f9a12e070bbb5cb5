"""What is sure of a learned rule's head where one of its features, TV(q1, p1), is known in part."""

from collections.abc import Sequence

import numpy as np

from speccascade.learned_head import FEATURES, Head
from speccascade.replay.between import Between


def right(head: Head, features: Sequence[Between]) -> tuple[Between, Between]:
    """Returns bounds of how probably the drafter's and the expert's best token is right, [P].

    Args:
      head: which head.
      features: bounds of `learned_head.FEATURES`, [P] each.
    """
    if len(features) != len(FEATURES):
        raise ValueError(f"{len(features)} features, not {len(FEATURES)}")
    mean, scale = np.array(head.mean), np.array(head.scale)
    low, high = ((np.stack(side, 1) - mean) / scale for side in zip(*features, strict=True))
    low, high = map(np.tanh, _affine(low, high, head.hidden_weight, head.hidden_bias))
    low, high = _affine(low, high, head.output_weight, head.output_bias)
    low, high = (1 / (1 + np.exp(-x)) for x in (low, high))
    drafter, expert = (Between(low[:, i], high[:, i]) for i in range(2))
    return drafter, expert


def _affine(low, high, weight, bias) -> tuple[np.ndarray, np.ndarray]:
    up, down = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
    return low @ up + high @ down + bias, high @ up + low @ down + bias
