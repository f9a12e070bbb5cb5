"""Hand-made figures against arithmetic and a search over all deferrals."""

import itertools

import numpy as np
import pytest

from speccascade.evaluate import reference_rows
from speccascade.evaluate.reference_rows import BUDGETS, Figures


def hand_made(q, p):
    """Figures of two examples of two and three positions."""
    own = np.array([[1, 1, 0], [1, 1, 1]], bool)

    def spread(values):
        out = np.full(own.shape, np.nan)
        out[own] = values
        return out

    q, p = spread(q), spread(p)
    return reference_rows.gains(Figures(p, q, p, q * np.nan, q * np.nan), own), own


@pytest.mark.parametrize(
    ("q", "p"),
    [
        ([0.1, 0.5, 0.9, 0.3, 0.2], [0.7, 0.4, 0.9, 0.8, 0.1]),
        ([0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0]),  # greedy: equal gains
    ],
)
def test_no_other_deferral_by_position_is_better_than_the_oracle(q, p):
    row = reference_rows.oracle_row(*hand_made(q, p))
    for deferred in range(6):
        best = max(
            np.where(np.isin(np.arange(5), chosen), p, q).mean()
            for chosen in itertools.combinations(range(5), deferred)
        )
        at = BUDGETS.index(round(deferred / 5, 2))
        assert row["quality"][at] == pytest.approx(best)
        assert sum(row["reference_sums"][at]) == pytest.approx(5 * best)


def test_between_whole_positions_the_oracle_defers_in_part():
    row = reference_rows.oracle_row(*hand_made([0.0] * 5, [1.0, 0.5, 0.0, 0.0, 0.0]))
    assert row["quality"][BUDGETS.index(0.1)] == pytest.approx(0.5 / 5)
    assert row["quality"][BUDGETS.index(0.2)] == pytest.approx(1.0 / 5)
    assert row["quality"][BUDGETS.index(0.3)] == pytest.approx(1.25 / 5)


def test_a_token_rule_can_pass_the_oracle():
    """Half of q's mass is on the reference and stays; the other half defers to an expert that is
    sure: at a deferral rate of a half the oracle can only do that at every other position."""
    q, p, defers = np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([False, True])
    by_token = (q * ~defers + p * (q * defers).sum())[0]
    figures = Figures(*(np.full((4, 1), x) for x in (by_token, 0.5, 1.0, 0.5, 0.5)))
    own = np.ones((4, 1), bool)
    row = reference_rows.rule_row(reference_rows.sums(figures, own), own)
    oracle = reference_rows.oracle_row(reference_rows.gains(figures, own), own)
    assert row["deferral_rate"] == 0.5 and row["quality"] == 1.0
    assert oracle["quality"][BUDGETS.index(0.5)] == 0.75
