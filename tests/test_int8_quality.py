"""The comparison of logits against closed forms, and the table of a pair."""

import jax
import ml_collections
import numpy as np
import pytest

from speccascade import pairs
from speccascade.benchmark import int8
from speccascade.errors import UserError
from tests import tiny_pair

TEXTS = [([3, 4, 5], [6, 7]), ([8], [9, 10, 11, 3]), ([4, 4], [5]), ([6], [7]), ([3], [3, 5])]


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_figures_are_means_over_the_answers_tokens():
    pair = tiny_pair.make()
    found = int8.compare(
        (pair.drafter, pair.params["drafter"]), (pair.expert, pair.params["expert"]), TEXTS
    )
    forward = {role: jax.jit(pair.models[role].forward) for role in pairs.ROLES}
    kl, agreement, losses = [], [], []
    for prompt, answer in TEXTS:
        tokens, length = np.zeros((1, 6), np.int32), np.array([len(prompt)])
        tokens[0, : len(prompt) + len(answer)] = [*prompt, *answer]
        q, p = (log_softmax(forward[r](pair.params[r], tokens, length)[0]) for r in pairs.ROLES)
        for i in range(len(prompt) - 1, len(prompt) + len(answer) - 1):
            kl.append(np.sum(np.exp(p[i]) * (p[i] - q[i])))
            agreement.append(p[i].argmax() == q[i].argmax())
            losses.append((-q[i, tokens[0, i + 1]], -p[i, tokens[0, i + 1]]))
    assert found.tokens == len(kl) == 10
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-4) and found.kl > 0.1
    assert found.agreement == pytest.approx(np.mean(agreement))
    expected = np.mean(losses, axis=0)
    assert (found.loss, found.reference_loss) == pytest.approx(tuple(expected), rel=1e-4)


def test_a_table_of_a_pair(tmp_path):
    pairs.export(tiny_pair.make(), str(tmp_path), {})
    lines = []
    int8.run(tiny_pair.get_config(str(tmp_path)), None, 3, lines.append)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in lines[0].splitlines()[2:]]
    compared = ["bfloat16 against float32", "int8 against bfloat16"]
    assert [row[:2] for row in rows] == [[r, c] for r in pairs.ROLES for c in compared]
    for exact, rounded in (rows[:2], rows[2:]):
        assert int(rounded[2].replace(",", "")) < int(exact[2].replace(",", ""))
        for row in (exact, rounded):
            assert 0 < float(row[3]) < 0.3 and 0.8 < float(row[4]) <= 1
        assert rounded[6] == exact[5]  # the loss in bfloat16


def test_bad_input():
    config = ml_collections.ConfigDict(tiny_pair.get_config(""))
    with pytest.raises(UserError, match="--num_examples=0 must be at least 1"):
        int8.run(config, None, 0, print)
