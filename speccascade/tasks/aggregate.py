"""From what a task says of single examples to one figure of all of them.

An aggregate is named by its task and, with the scores, by the rows of results, so that a report
resamples examples and computes the figure anew. It maps arrays whose leading axes it keeps:
float64 [..., n] or, of an example's statistics, [..., n, k] to [...].
"""

from collections.abc import Callable

import numpy as np

MAX_ORDER = 4


def mean(scores: np.ndarray) -> np.ndarray:
    """Returns the mean of scores [..., n]."""
    return scores.mean(-1)


def bleu(statistics: np.ndarray) -> np.ndarray:
    """Returns BLEU in percent (Papineni et al. 2002), as sacrebleu smooths it ("exp").

    Args:
      statistics: [..., n, 10], of every example as `tasks.overlap.bleu_statistics` counts them:
        words of the answer and of the reference, matching n-grams for n = 1..4, n-grams of the
        answer. They may be means over seeds: BLEU is that of all seeds' answers together.
    """
    total = statistics.sum(-2)
    length, reference = total[..., 0], total[..., 1]
    correct, found = total[..., 2 : 2 + MAX_ORDER], total[..., 2 + MAX_ORDER :]
    # The kth order without a match counts as 2^-k matches.
    smoothed = np.where(correct > 0, correct, 0.5 ** np.cumsum(correct == 0, axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(smoothed / found).mean(-1))
        score = 100 * np.exp(np.minimum(0, 1 - reference / length)) * precision
    # Without a match, or without a single 4-gram, they are worth nothing.
    return np.where((correct > 0).any(-1) & (found > 0).all(-1), score, 0.0)


def without_matches(statistics: np.ndarray) -> np.ndarray:
    """Returns the statistics of answers as long as these that have no word right, for `bleu`."""
    found = np.array(statistics)
    found[..., 2 : 2 + MAX_ORDER] = 0
    return found


_Map = Callable[[np.ndarray], np.ndarray]
_AGGREGATES: dict[str, tuple[_Map, _Map]] = {
    "mean": (mean, np.zeros_like),
    "bleu": (bleu, without_matches),
}


def statistic(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function that a task, or a row of results, names."""
    return _AGGREGATES[name][0]


def worthless(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from examples' scores to those of answers that are worth nothing."""
    return _AGGREGATES[name][1]
