import functools

import jax
import numpy as np
import pytest

from speccascade.errors import UserError
from speccascade.training import losses

P = np.array([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]])  # teacher
Q = np.array([[0.25, 0.5, 0.25], [1 / 3, 1 / 3, 1 / 3]])  # student
M = (P + Q) / 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("forward_kl", (P * np.log(P / Q)).sum(-1)),
        ("reverse_kl", (Q * np.log(Q / P)).sum(-1)),
        ("jensen_shannon", (P * np.log(P / M) + Q * np.log(Q / M)).sum(-1) / 2),
        ("total_variation", np.array([0.25, 0.0])),
    ],
)
def test_distillation_losses_have_their_closed_form(name, expected):
    got = jax.jit(losses.distillation(name))(np.log(Q), np.log(P))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def of_all(log_q, log_p):
    return {name: loss(log_q, log_p) for name, loss in losses.DISTILLATION.items()}


def test_a_student_over_part_of_the_vocabulary():
    # The student knows two of three tokens; what the teacher gives the third is lost to it.
    q, p = np.array([0.25, 0.75]), np.array([0.5, 0.25])
    found = jax.jit(of_all)(np.log(q), np.log(p))
    np.testing.assert_allclose(found["total_variation"], 1 - np.minimum(p, q).sum(), atol=1e-6)
    np.testing.assert_allclose(found["reverse_kl"], (q * np.log(q / p)).sum(), atol=1e-6)
    np.testing.assert_allclose(found["forward_kl"], (p * np.log(p / q)).sum(), atol=1e-6)
    p, q = np.append(p, 0.25), np.append(q, 1e-30)
    both = (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum() / 2
    np.testing.assert_allclose(found["jensen_shannon"], both, atol=1e-6)


def test_extreme_logits_stay_finite():
    far = np.array([[1e4, 0.0, -1e4]])
    found = jax.jit(lambda *both: of_all(*map(jax.nn.log_softmax, both)))(far, far[:, ::-1])
    for loss in found.values():
        assert np.isfinite(loss).all()


def test_unknown_distillation():
    with pytest.raises(UserError, match="unknown distillation loss 'mse'; known: forward_kl"):
        losses.distillation("mse")


def test_cross_entropy():
    got = jax.jit(losses.cross_entropy)(np.log(P), np.array([1, 2]))
    np.testing.assert_allclose(got, -np.log([0.25, 1 / 3]), rtol=1e-6)


def test_weights_cover_prompt_answer_and_eos_but_no_padding():
    # prompt a b, answer c, EOS, padding: position t predicts token t + 1.
    weigh = jax.jit(functools.partial(losses.token_weights, 6))
    got = weigh(np.array([2, 1]), np.array([4, 6]), 0.2)
    np.testing.assert_allclose(got, [[0.2, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def test_parts_add_up_to_the_mean_over_all():
    mean_part = jax.jit(losses.mean_part)
    assert mean_part(np.ones(2), np.zeros(2), 0.0) == 0
    values, weights = np.array([1.0, 5.0, 4.0]), np.array([3.0, 1.0, 0.5])
    parts = [mean_part(values[at], weights[at], 4.5) for at in (slice(1), slice(1, 3))]
    np.testing.assert_allclose(sum(parts), 10 / 4.5, rtol=1e-6)


def test_padding_is_never_likely():
    logits = np.array([[0.0, 1.0, 9.0]])
    assert losses.of_known(logits, 3) is logits
    p = jax.jit(lambda logits: jax.nn.softmax(losses.of_known(logits, 2)))(logits)
    np.testing.assert_allclose(p, [[1 / (1 + np.e), np.e / (1 + np.e), 0.0]], rtol=1e-6)
    assert p[0, 2] == 0
