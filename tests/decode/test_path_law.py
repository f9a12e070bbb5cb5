"""The jitted, sampled decode follows the law of sequences that each rule's pi implies."""

import functools

import numpy as np
import pytest

from speccascade.decode import sequence_cascade, token_cascade
from tests.decode import path_law, toys
from tests.decode.path_law import TABLE, Limits, Setting

PARAMS = toys.tables(path_law.VOCAB, seed=3)
COLD = {"temperature": 0.7, "drafter": Limits(2), "expert": Limits(3, 0.9, 0.15)}
GREEDY = {"temperature": 0.0}


@pytest.mark.parametrize("verifier", ["token", pytest.param("block", marks=pytest.mark.slow)])
def test_every_rule_follows_its_law(verifier):
    decode = path_law.speculative(path_law.decoder(verifier), PARAMS)
    path_law.check(decode, PARAMS, path_law.settings(), draws=500, batches=12)


@pytest.mark.parametrize("verifier", ["token", pytest.param("block", marks=pytest.mark.slow)])
def test_spec_follows_its_law_without_the_bonus_position(verifier):
    chosen = [Setting("spec", {}), Setting("spec", {}, **COLD), Setting("spec", {}, **GREEDY)]
    decode = path_law.speculative(path_law.decoder(verifier), PARAMS)
    path_law.check(decode, PARAMS, chosen, draws=5000, batches=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("verifier", ["token", "block"])
def test_every_rule_follows_its_law_at_length(verifier, size, seed):
    params = toys.tables(path_law.VOCAB, seed=seed)
    decode = path_law.speculative(path_law.decoder(verifier, size=size), params)
    path_law.check(decode, params, path_law.settings(), draws=500, batches=40)


@pytest.mark.parametrize(("rule", "alphas"), [("chow", (0.4, 0.55)), ("chowlog", (0.5, 0.7))])
def test_token_cascade_follows_the_law_of_its_rule(rule, alphas):
    def decode(batch, rows):
        made = path_law.make_rules(batch)[0][0]
        return token_cascade(TABLE, TABLE, PARAMS, made, rows, path_law.LIMIT)

    plain, cold = ({"alpha": alpha} for alpha in alphas)
    chosen = [Setting(rule, plain), Setting(rule, cold, **COLD)]
    path_law.check(decode, PARAMS, chosen, draws=5000, batches=4)


# ---- sequence cascade: a law of its own ----

THRESHOLD = -0.9


def sequence_law(setting: Setting, params) -> np.ndarray:
    """The law of "as the drafter wrote it, or, where it was unsure, as the expert does"."""
    q, p, q1, _ = path_law.tables_of(setting, params)
    laws = [path_law.enumeration.target_law(table[None], path_law.LIMIT)[0] for table in (q, p)]
    kept = []
    for sequence in path_law.SEQUENCES:
        context, own = 0, []
        for token in sequence:
            own.append(np.log(q1[context, token]))
            context = (context * path_law.VOCAB + token) % len(q1)
            if token == path_law.enumeration.EOS:
                break
        kept.append(np.mean(own) >= THRESHOLD)
    by_drafter = laws[0] * np.array(kept)
    return by_drafter + (1 - by_drafter.sum()) * laws[1]


def check_sequence_cascade():
    def decode(batch, rows):
        return sequence_cascade(TABLE, TABLE, PARAMS, THRESHOLD, rows, path_law.LIMIT)

    chosen = [Setting("expert", {}), Setting("expert", {}, **COLD)]
    path_law.check(decode, PARAMS, chosen, draws=5000, batches=6, law=sequence_law)


def test_sequence_cascade_follows_its_law():
    q, p = (path_law.law(Setting(name, {}), PARAMS) for name in ("drafter", "expert"))
    mixed = sequence_law(Setting("expert", {}), PARAMS)
    assert min(np.abs(mixed - q).sum(), np.abs(mixed - p).sum()) > 0.2  # it does both
    check_sequence_cascade()


def test_an_expert_that_rewrites_with_the_drafters_noise_is_caught(monkeypatch):
    monkeypatch.setattr("speccascade.decode.sequential.REWRITE", 0)
    with pytest.raises(AssertionError, match="is not of its law"):
        check_sequence_cascade()


# ---- the check itself ----


@functools.cache
def exact():
    return path_law.law(Setting("spec", {}), PARAMS)


def test_the_check_is_calibrated_and_has_power():
    rng, probs = np.random.default_rng(0), exact()
    found = [path_law.p_value(rng.multinomial(20_000, probs), probs) for _ in range(400)]
    assert 0.4 < np.mean(found) < 0.6 and min(found) > 1e-5
    # A law at a distance of 0.03.
    other = probs.copy()
    up, down = np.argsort(-probs)[:2]
    other[up] += 0.03
    other[down] -= 0.03
    assert path_law.p_value(rng.multinomial(20_000, other), probs) < path_law.ALARM
    # A sequence that cannot be.
    counts = rng.multinomial(20_000, probs)
    impossible = np.flatnonzero(probs == 0)
    assert len(impossible)
    counts[impossible[0]] += 1
    assert path_law.p_value(counts, probs) == 0
