import numpy as np
import pytest
from scipy import stats

from speccascade.report import correlation
from speccascade.report.points import collect
from tests.report.synthetic import EXPERT, speculative, sweep

HALF = [1.0, 0.0] * 20


def test_correlations_agree_with_scipy():
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(5, 30))
    ys = np.round(xs + rng.normal(size=xs.shape), 1)  # with ties
    for x, y, linear, ranked in zip(
        xs, ys, correlation.pearson(xs, ys), correlation.spearman(xs, ys), strict=True
    ):
        assert linear == pytest.approx(stats.pearsonr(x, y).statistic)
        assert ranked == pytest.approx(stats.spearmanr(x, y).statistic)


def measured(rejection, latency):
    """Settings of two draft lengths."""
    alphas = np.linspace(0.1, 0.9, len(latency) // 2)
    entries = [speculative("token_v3", n, alpha=float(a)) for n in (3, 5) for a in alphas]
    points = [(e, HALF, HALF, float(x)) for e, x in zip(entries, latency, strict=True)]
    rows, config = sweep((EXPERT, HALF, HALF, 1.0), *points)
    by_entry = {(e["draft_length"], e["alpha"]): r for e, r in zip(entries, rejection, strict=True)}
    for row in rows:
        if row["kind"] == "quality" and row["method"] == "speculative":
            row["rejection_rate"] = by_entry[row["draft_length"], row["knobs"]["alpha"]]
    return collect(rows, config, "COMMAND")


def test_rejection_and_latency_over_settings():
    rng = np.random.default_rng(1)
    latency = rng.uniform(0.3, 0.9, 24)
    rejection = (2 * latency**3).tolist()  # ranks agree, values do not quite
    three, five, everything = correlation.correlations(measured(rejection, latency), "test")
    assert (three.draft_length, five.draft_length, everything.draft_length) == (3, 5, None)
    assert (three.num_settings, five.num_settings, everything.num_settings) == (12, 12, 24)
    assert everything.spearman == pytest.approx(1.0)
    assert everything.spearman_interval == pytest.approx((1.0, 1.0))
    assert everything.pearson == pytest.approx(stats.pearsonr(rejection, latency).statistic)
    low, high = everything.pearson_interval
    assert low < everything.pearson < high <= 1


def test_where_nothing_can_be_said_nothing_is():
    assert correlation.correlations(measured([0.1] * 2, [0.5, 0.6]), "test") == []
    constant = correlation.correlations(measured([0.1] * 8, np.linspace(0.3, 0.9, 8)), "test")
    assert all(c.pearson is None and c.spearman_interval is None for c in constant)
    made = correlation.table(constant)
    assert made.rows[-1] == ["all", "8", "–", "–"]
