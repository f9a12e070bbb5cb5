"""Bounds against the rules themselves, over random distributions."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speccascade import rules
from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.replay import bounds, positions
from speccascade.rules import Distributions
from speccascade.sampling import Truncation, confidence, distribution
from speccascade.workdir import distributions
from tests import toy_head
from tests.replay import saved

SIZE = 12
TOLERANCE = 2e-5  # of float32


def entry(name, alpha, **more):
    """Returns a setting of a rule, whatever knobs it has."""
    if name == "bild":  # whose edge is 1 at alpha = 0, where rounding says what is below it
        alpha = max(alpha, 0.05)
    given = {"alpha": alpha, "head": toy_head.PATH, "k": 3}
    knobs = {k: v for k, v in given.items() if k in rules.definition(name).knobs}
    return setting({"rule": name, "draft_length": 2, **knobs, **more})


@jax.jit
def _exact(made, models, temperature, limits):
    warm = [
        distribution(x[None], temperature, limit) for x, limit in zip(models, limits, strict=True)
    ]
    d = Distributions(*warm, *(confidence(x[None]) for x in models))
    targets = [rules.apply(rule, d) for rule in made]
    return [(rules.total_variation(t.pi, d.q)[0, :, 0], t.deferral[0]) for t in targets]


def exact(models, chosen):
    """Returns TV(pi, q) and the deferred mass of each, by the functions that decoding runs."""
    one = chosen[0]
    limits = [
        Truncation(**{k: np.full(1, v) for k, v in pairs}) if pairs else None
        for pairs in (one.drafter_truncation, one.expert_truncation)
    ]
    made = tuple(rules.make(s.rule, **dict(s.knobs)) for s in chosen)
    found = _exact(made, models, np.full(1, one.temperature, np.float32), limits)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), found)


def all_rules(alpha, **more):
    return [entry(name, alpha, **more) for name in rules.RULES]


def compared(recorded, models, every):
    """Yields each setting with a truth and its two bounds."""
    truths_of = exact(models, every)
    [apart] = [found[0] for s, found in zip(every, truths_of, strict=True) if s.rule == "spec"]
    for chosen, truths in zip(every, truths_of, strict=True):
        found = bounds.of(chosen, bounds.partly(recorded, chosen))
        # A head that finds no difference between q and p takes either, as rounding has it.
        told = apart > TOLERANCE if chosen.rule == "learned" else slice(None)
        for truth, (low, high) in zip(truths, found, strict=True):
            yield chosen, truth[told], (low[told], high[told])


COUNT = 24
LIMITS = ({}, {"drafter_top_k": 4, "drafter_min_p": 0.1, "expert_top_p": 0.8})


def check_bounds(seed, top, shape, temperature, limits, alpha, more):
    models = saved.draw(np.random.default_rng(seed), COUNT, SIZE, *shape)
    recorded = distributions.from_row(saved.row(models, top, more))
    every = all_rules(alpha, temperature=temperature, **limits)
    for chosen, truth, (low, high) in compared(recorded, models, every):
        if np.isnan(truth).all():
            assert np.isnan(low).all() and np.isnan(high).all()
            continue
        assert (low <= truth + TOLERANCE).all() and (truth <= high + TOLERANCE).all(), chosen


CASES = {
    "seed": st.integers(0, 10**6),
    "top": st.integers(1, SIZE),
    "shape": st.sampled_from([(2.0, 1.0), (0.5, 0.3), (6.0, 3.0)]),
    "temperature": st.sampled_from([0.0, 0.6, 1.0, 1.7]),
    "limits": st.sampled_from(LIMITS),
    "alpha": st.sampled_from([0.0, 0.1, 0.3, 0.8]),
    "more": st.booleans(),
}
test_bounds_hold_the_truth = given(**CASES)(check_bounds)
test_bounds_hold_the_truth_of_many = pytest.mark.slow(
    settings(max_examples=400)(given(**CASES)(check_bounds))
)


@pytest.mark.parametrize(
    ("temperature", "limits"), [(0.0, 0), (1.0, 1), (0.7, 1), (1.5, 0)], ids=str
)
def test_all_tokens_listed_are_whole(temperature, limits):
    models = saved.draw(np.random.default_rng(0), COUNT, SIZE)
    recorded = distributions.from_row(saved.row(models, SIZE))
    every = all_rules(0.3, temperature=temperature, **LIMITS[limits])
    for chosen, truth, both in compared(recorded, models, every):
        for side in both:
            np.testing.assert_allclose(side, truth, atol=TOLERANCE, err_msg=str(chosen))


def test_at_temperature_0_both_chosen_tokens_are_enough():
    models = saved.draw(np.random.default_rng(1), COUNT, SIZE)
    recorded = distributions.from_row(saved.row(models, 1))
    for chosen, truth, both in compared(recorded, models, all_rules(0.3)):
        if chosen.rule in ("learned", "topk_relaxed"):  # of TV(q1, p1), of the k largest
            continue
        for side in both:
            np.testing.assert_allclose(side, truth, atol=TOLERANCE, err_msg=str(chosen))


def test_more_tokens_say_more():
    models = saved.draw(np.random.default_rng(2), 40, SIZE, 1.0)
    chosen = entry("token_v3", 0.3, temperature=1.0)
    widths = []
    for top in (1, 2, 4, 8):
        recorded = distributions.from_row(saved.row(models, top))
        low, high = bounds.of(chosen, bounds.partly(recorded, chosen)).rejection
        widths.append((high - low).mean())
    assert widths == sorted(widths, reverse=True) and widths[-1] < widths[0] / 4


def test_whole_distributions_are_exact_and_ends_are_the_rules_own():
    models = saved.draw(np.random.default_rng(3), COUNT, SIZE)
    chosen_ones = [
        entry("token_v3", 0.3, temperature=1.0),
        entry("bild", 1.0, temperature=1.0, fallback=0.5),
    ]
    q1 = jax.nn.softmax(models[0], -1).max(-1)
    for top in (None, 2):
        recorded = distributions.from_row(saved.row(models, top))
        [found] = positions.replay([recorded], chosen_ones)
        for chosen, own in zip(chosen_ones, found, strict=True):
            ends = q1 < 0.5 if chosen.rule == "bild" else np.zeros(COUNT, bool)
            np.testing.assert_array_equal(own.ends, ends)
            if top is None:
                for truth, both in zip(exact(models, [chosen])[0], own[:2], strict=True):
                    np.testing.assert_allclose(both.low, truth, atol=1e-6)
                    assert both.low is both.high


def test_a_rule_without_bounds_wants_whole_distributions(monkeypatch):
    monkeypatch.setitem(rules.RULES, "mine", rules.RULES["spec"])
    models = saved.draw(np.random.default_rng(4))
    chosen = setting({"rule": "mine", "draft_length": 2})
    listed = distributions.from_row(saved.row(models, 3))
    with pytest.raises(UserError, match="rule mine has no bounds .* save them whole"):
        list(positions.replay([listed], [chosen]))
    whole = distributions.from_row(saved.row(models))
    assert len(list(positions.replay([whole], [chosen]))) == 1
