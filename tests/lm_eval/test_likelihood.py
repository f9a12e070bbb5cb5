"""Log-likelihoods against each position scored by itself, and the rules' closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.lm_eval import likelihood
from tests import rule_oracle, tiny_pair
from tests.jitted import forward

TEXTS = [([5, 6, 7, 8], [9, 10, 11]), ([12, 13], [14]), ([5, 6, 7, 8], []), ([15] * 20, [16, 17])]
LAWS = {
    "token_v3": {"rule": "token_v3", "alpha": 0.6, "draft_length": 3},
    "chow": {"rule": "chow", "alpha": 0.7, "draft_length": 3},
    "spec": {"rule": "spec", "draft_length": 3},
    "drafter": {"method": "autoregressive_drafter"},
}


@pytest.fixture(scope="module")
def pair():
    return tiny_pair.make(scale=1.0)  # flat enough that the rule keeps some drafts


@pytest.fixture(scope="module")
def distributions(pair):
    """q and p at each position of `TEXTS`, [positions, V] each, and the tokens there."""
    found, ids = {role: [] for role in pair.roles}, []
    for prompt, answer in TEXTS:
        for i, token in enumerate(answer):
            text = prompt + answer[:i]
            padded = jnp.asarray([text + [0] * (24 - len(text))])
            ids.append(token)
            for role, rows in found.items():
                args = pair.params[role], padded, jnp.asarray([len(prompt)])
                logits = np.asarray(forward(pair.models[role], *args)[0, len(text) - 1], np.float64)
                rows.append(np.exp(logits - logits.max()))
    q, p = (np.array(found[role]) for role in ("drafter", "expert"))
    return q / q.sum(-1, keepdims=True), p / p.sum(-1, keepdims=True), np.array(ids)


@pytest.mark.parametrize("name", LAWS)
def test_log_likelihoods_are_those_of_the_target_at_temperature_1(pair, distributions, name):
    q, p, ids = distributions
    entry = LAWS[name]
    knobs = {"alpha": entry.get("alpha")}
    rows = [rule_oracle.oracle(name, knobs, *row, *row)[0] for row in zip(q, p, strict=True)]
    logs = np.log([pi[token] for pi, token in zip(rows, ids, strict=True)])
    ends = np.cumsum([len(answer) for _, answer in TEXTS])
    expected = [part.sum() for part in np.split(logs, ends[:-1])]
    for temperature in (0.0, 0.7):
        own = setting({**entry, "temperature": temperature})
        found = likelihood.scores(pair, own, TEXTS, 2)
        np.testing.assert_allclose([value for value, _ in found], expected, atol=1e-4)
    assert found[2] == (0.0, True)  # nothing to write


def test_what_may_follow_adds_up_to_one(pair):
    texts = [([5, 6, 7], [token]) for token in range(pair.expert.vocab_size)]
    for name in ("token_v3", "spec"):
        found = likelihood.scores(pair, setting(LAWS[name]), texts, 2)
        logs = np.array([value for value, _ in found])
        assert np.exp(logs).sum() == pytest.approx(1, abs=1e-4)
        assert sum(greedy for _, greedy in found) == 1


def test_what_is_excluded_is_impossible(pair):
    texts = [([5, 6, 7], [token]) for token in range(pair.expert.vocab_size)]
    found = likelihood.scores(pair, setting({**LAWS["spec"], "expert_top_k": 1}), texts, 2)
    assert sorted(value for value, _ in found)[-2:] == [-np.inf, 0.0]
    assert found[int(np.argmax([value for value, _ in found]))] == (0.0, True)


def test_greedy_texts(pair, distributions):
    """The rule keeps the drafter's first choice where the expert has it nearly as likely as its."""
    q, p, _ = distributions
    first = q.argmax(-1)
    kept = np.take_along_axis(p, first[:, None], 1)[:, 0] >= (1 - 0.6) * p.max(-1)
    greedy = np.where(kept, first, p.argmax(-1))
    assert 0 < kept.sum() < len(kept)
    prompts = [prompt + answer[:i] for prompt, answer in TEXTS for i in range(len(answer))]
    best = [(prompt, [int(token)]) for prompt, token in zip(prompts, greedy, strict=True)]
    others = [(prompt, [(token + 1) % q.shape[1]]) for prompt, (token,) in best]
    found = likelihood.scores(pair, setting(LAWS["token_v3"]), best + others, 2)
    assert [own for _, own in found] == [True] * len(best) + [False] * len(others)


@pytest.mark.parametrize(
    "entry",
    [
        {"method": "sequence_cascade", "threshold": -0.5},
        {"rule": "token_v3", "alpha": 0.3, "draft_length": 2, "drafter": "lookup"},
        {**LAWS["chow"], "middle_rule": "spec", "middle_draft_length": 2},
    ],
)
def test_settings_without_a_target_at_a_prefix(pair, entry):
    with pytest.raises(UserError, match="has no log-likelihoods: what it writes next is no functi"):
        likelihood.scores(pair, setting(entry), TEXTS, 2)


def test_lossless_decoding_has_the_experts_however_it_drafts(pair):
    expert = likelihood.scores(pair, setting({"method": "autoregressive_expert"}), TEXTS, 2)
    lookup = setting({**LAWS["spec"], "drafter": "lookup"})
    assert likelihood.scores(pair, lookup, TEXTS, 2) == expert


def test_windows():
    tokens = list(range(10))
    assert list(likelihood.windows(tokens, 99, 5)) == [
        # As lm_eval.api.model.LM has it, whose parts hold one token less.
        ([99], [0, 1, 2, 3]),
        ([3], [4, 5, 6, 7]),
        ([5, 6, 7], [8, 9]),
    ]
    assert list(likelihood.windows(tokens, 99, None)) == [([99], tokens)]
    assert list(likelihood.windows(tokens[:2], 99, 5)) == [([99], [0, 1])]
    assert list(likelihood.windows([], 99, 5)) == []


def test_windows_are_the_librarys():
    utils = pytest.importorskip("lm_eval.utils", reason="lm_eval is not installed")
    for size in range(1, 12):
        for most in range(2, 9):
            tokens = list(range(size))
            own = utils.get_rolling_token_windows(tokens, 99, most - 1, 1)
            expected = [utils.make_disjoint_window(part) for part in own]
            assert list(likelihood.windows(tokens, 99, most)) == expected
