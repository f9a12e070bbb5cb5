import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade.inference.reading import setting
from speccascade.tuning.evidence import bounded_mean_p_value
from speccascade.tuning.sequences import certify, law, sequences

P_VALUES = st.lists(
    st.lists(
        st.sampled_from([0.001, 0.012, 0.016, 0.02, 0.024, 0.04, 0.06]), min_size=1, max_size=2
    ),
    min_size=1,
    max_size=3,
)


def closed_test(p_values, error):
    """Certifies by the definition: what every joint hypothesis that holds it is rejected with."""
    every = [(s, i) for s, own in enumerate(p_values) for i in range(len(own))]
    rejected = {}
    for size in range(1, len(every) + 1):
        for joint in itertools.combinations(every, size):
            first = {}
            for s, i in joint:
                first[s] = min(i, first.get(s, i))
            rejected[joint] = any(p_values[s][i] <= error / len(first) for s, i in first.items())
    return {one for one in every if all(r for joint, r in rejected.items() if one in joint)}


@given(P_VALUES)
def test_certified_is_what_the_closed_test_rejects(p_values):
    counts, levels = certify(p_values, 0.05)
    found = {(s, i) for s, count in enumerate(counts) for i in range(count)}
    assert found == closed_test(p_values, 0.05)
    for own, count, level in zip(p_values, counts, levels, strict=True):
        assert all(p <= level for p in own[:count])
        assert count == len(own) or own[count] > level


# ---- the promise, kept ----

PROMISED, ERROR, REPEATS, EXAMPLES = 0.1, 0.05, 400, 120
# The losses of four sequences of three settings each: kept, broken by a hair, broken.
TRUE = np.array([[0.02, 0.1, 0.2], [0.1, 0.1, 0.1], [0.1, 0.02, 0.3], [0.1, 0.15, 0.1]])


def tables(rng):
    """Losses [REPEATS, 4, 3, EXAMPLES] of the mean `TRUE`, of settings that do not depend."""
    shape = (REPEATS, *TRUE.shape, EXAMPLES)
    worse, better = TRUE + 0.02, 0.02
    draw = rng.uniform(size=shape)
    return np.where(
        draw < worse[..., None], 1.0, np.where(draw < worse[..., None] + better, -1.0, 0.0)
    )


def broken_share(certify, p_value=lambda losses: bounded_mean_p_value(losses, PROMISED, 1.0)):
    """Returns how often any setting is certified that breaks its promise, and how many are."""
    p_values = p_value(tables(np.random.default_rng(0)))
    broken, certified = 0, 0
    for table in p_values:
        counts, _ = certify(table.tolist(), ERROR)
        found = np.arange(TRUE.shape[1]) < np.array(counts)[:, None]
        broken += np.any(found & (TRUE >= PROMISED))
        certified += found.sum()
    return broken / REPEATS, certified / REPEATS


def test_promises_are_broken_no_more_often_than_stated():
    broken, certified = broken_share(certify)
    assert broken <= ERROR
    assert certified > 0.3  # and it does certify what can be told


def each_alone(p_values, error):
    return [sum(np.cumprod(np.array(own) <= error)) for own in p_values], None


def best_of_all(p_values, error):
    """Certifies the setting that looks best, as if it were the only one."""
    firsts = np.array(p_values)
    s, i = np.unravel_index(firsts.argmin(), firsts.shape)
    return [i + 1 if s == k and firsts[s, i] <= error else 0 for k in range(len(p_values))], None


def t_like(losses):
    """A normal test; its p-values are those of large samples."""
    from scipy.stats import norm

    error = np.maximum(losses.std(-1), 1e-9) / np.sqrt(losses.shape[-1])
    return norm.sf((PROMISED - losses.mean(-1)) / error)


def estimate_only(p_values, error):
    return certify(p_values, 0.5)


@pytest.mark.parametrize("mutant", [each_alone, best_of_all, estimate_only])
def test_choosing_among_many_without_control_is_caught(mutant):
    assert broken_share(mutant, t_like)[0] > 2 * ERROR


# ---- orders and laws ----


def speculative(rule, alpha, **fields):
    return setting({"rule": rule, "alpha": alpha, "draft_length": 3, **fields})


def alphas(found):
    return [[dict(s.knobs)["alpha"] for s in own] for own in found]


def test_sequences_lead_from_the_expert_to_the_drafter_and_back():
    shuffled = [speculative("chow", a) for a in (0.4, 0.1, 0.6)]
    # The keener alpha of `typical` rejects more; lossless `opt` lies at minus infinity.
    shuffled += [speculative("typical", a) for a in (0.1, 0.6, 0.3)]
    shuffled += [speculative("opt", a) for a in (0.5, -0.5, 0.0)]
    expected = [[0.1, 0.4, 0.6], [0.6, 0.3, 0.1], [-0.5, 0.0, 0.5]]
    assert alphas(sequences(shuffled)) == expected
    assert alphas(sequences(shuffled, from_drafter=True)) == [own[::-1] for own in expected]


def test_only_alpha_or_a_truncation_changes_in_a_sequence():
    others = [
        speculative("token_v3", 0.1),
        speculative("token_v3", 0.2, draft_length=5),
        speculative("token_v3", 0.2, verifier="block"),
        speculative("bild", 2.0, fallback=0.3),
        speculative("bild", 3.0, fallback=0.6),
        speculative("topk_relaxed", 0.5, k=2),
        speculative("topk_relaxed", 0.5, k=3),
        speculative("token_v3", 0.3, middle_rule="spec", middle_draft_length=2),
        speculative("token_v3", 0.3, middle_rule="spec", middle_draft_length=3),
        speculative("token_v3", 0.3, middle_rule="chow", middle_alpha=0.1, middle_draft_length=2),
        speculative("token_v3", 0.3, middle_rule="chow", middle_alpha=0.2, middle_draft_length=2),
    ]
    assert sequences(others) == [[s] for s in others]
    limits = {"expert_top_k": (9, 5, 2), "expert_top_p": (0.9, 0.5), "expert_min_p": (0.1, 0.4)}
    for name, values in limits.items():
        entries = [{"rule": "spec", "draft_length": 3, name: value} for value in values]
        own = [setting(entry) for entry in entries]
        assert sequences(own[::-1]) == [own]
    cascades = [{"method": "sequence_cascade", "threshold": t} for t in (-0.1, -0.5)]
    assert sequences(map(setting, cascades[::-1])) == [[setting(c) for c in cascades]]


def test_block_length_and_verifier_change_no_law():
    base = speculative("chow", 0.3)
    same = [
        speculative("chow", 0.3, draft_length=7),
        speculative("chow", 0.3, verifier="block"),
        setting({"method": "token_cascade", "rule": "chow", "alpha": 0.3}),
    ]
    assert {law(s) for s in same} == {law(base)}
    for other in (
        speculative("chow", 0.4),
        speculative("chow", 0.3, temperature=1.0),
        speculative("chow", 0.3, expert_top_k=2, temperature=1.0),
        setting({"method": "sequence_cascade", "threshold": 0.3}),
    ):
        assert law(other) != law(base)


def test_greedy_rules_that_are_one_have_one_law():
    # That they are is shown in test_rules.py, by their targets.
    one = [speculative(rule, 0.3, expert_top_k=2) for rule in ("diff", "opt", "token_v1")]
    assert len({law(s) for s in one}) == 1
    lossless = [speculative(rule, 0.3) for rule in ("lossy", "lenient")]
    lossless.append(setting({"rule": "spec", "draft_length": 3, "expert_top_p": 0.5}))
    assert {law(s).rule for s in lossless} == {"spec"} and len({law(s) for s in lossless}) == 1
    warm = [speculative(r, 0.3, temperature=0.1) for r in ("diff", "opt", "lossy", "lenient")]
    assert len({law(s) for s in warm}) == 4
