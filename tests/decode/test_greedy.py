"""Temperature 0: endpoints are the models' own texts, and many rules are one."""

import numpy as np
import pytest

from speccascade import rules
from speccascade.decode import autoregressive, generate
from tests.decode import reference, toys

each_verifier = pytest.mark.parametrize(("pair", "verifier"), toys.VERIFIED, indirect=["pair"])


@pytest.fixture(scope="module")
def own(pair):
    """Returns texts of drafter and expert alone, for 32 prompts, each twice in the batch."""
    rows = toys.greedy_rows(toys.prompts(seed=3, count=toys.BATCH // 2) * 2)
    made = {}
    for role, model in (("drafter", pair.drafter), ("expert", pair.expert)):
        out = autoregressive(model, pair.params[role], rows, toys.ROOM, logprobs=True)
        made[role] = toys.texts(out)
        assert np.all(np.asarray(out.num_tokens) == toys.ROOM)
        np.testing.assert_array_equal(out.stats.expert_calls, toys.ROOM)
        np.testing.assert_array_equal(out.stats.by_name().get("drafter_calls", 0), 0)
        np.testing.assert_array_equal(np.asarray(out.logprob)[:, : toys.ROOM], 0)
    return rows, made


def decode(
    pair: toys.Pair, verifier: str, row_prompts, requests: list[tuple[str, dict]]
) -> list[list[int]]:
    """Decodes each prompt greedily by the rule and knobs beside it; the batch is filled up."""
    fill = toys.BATCH - len(requests)
    requests = requests + [("expert", {})] * fill
    rows = toys.greedy_rows(
        row_prompts + [[0]] * fill, rule_index=[toys.NAMES.index(name) for name, _ in requests]
    )
    made = toys.all_rules([knobs for _, knobs in requests])
    return toys.texts(generate(pair.decoder(verifier), pair.params, made, rows))


@pytest.mark.parametrize("role", ["drafter", "expert"])
def test_a_model_alone_takes_its_best_token(pair, own, role):
    rows, made = own
    model = {"drafter": pair.drafter, "expert": pair.expert}[role]
    text = np.zeros((toys.BATCH, toys.SLOTS + toys.ROOM + toys.SIZE), int)
    for b, (n, tokens) in enumerate(zip(rows.prompt_length, made[role], strict=True)):
        text[b, :n], text[b, n : n + toys.ROOM] = rows.prompt[b, :n], tokens
    at = rows.prompt_length[:, None] - 1 + np.arange(toys.ROOM)
    params, width = pair.params[role], toys.SIZE + 1  # the reference's shapes: no other program
    logits = [
        reference.logits_at(model, params, text, rows.prompt_length, at[:, i : i + width])
        for i in range(0, toys.ROOM, width)
    ]
    logits = np.concatenate(logits, axis=1)
    assert logits.argmax(-1).tolist() == made[role]
    best = np.sort(logits, -1)
    margin = (best[..., -1] - best[..., -2]).min()
    print(f"least margin between the two best logits of the {role}: {margin:.2g}")
    assert margin > 1e-5, "two logits are too close for rounding to be told from a mistake"


@each_verifier
def test_endpoints_are_the_models_own_texts(pair, own, verifier):
    rows, made = own
    ends = [
        (name, knobs, role)
        for name, row in rules.RULES.items()
        for role, knobs in (("drafter", row.drafter_at), ("expert", row.expert_at))
        if knobs is not None
    ]
    assert len(ends) <= toys.BATCH // 2
    # Each endpoint on two prompts.
    requests, expected, row_prompts = [], [], []
    for i, (name, knobs, role) in enumerate(ends):
        for j in (i, (i + 7) % (toys.BATCH // 2)):
            requests.append((name, knobs))
            row_prompts.append(rows.prompt[j, : rows.prompt_length[j]].tolist())
            expected.append(made[role][j])
    found = decode(pair, verifier, row_prompts, requests)
    for (name, knobs), text, whole in zip(requests, found, expected, strict=False):
        assert text == whole, f"{name} at {knobs}"
    distinct = [a != b for a, b in zip(made["drafter"], made["expert"], strict=True)]
    assert np.mean(distinct) > 0.9


@each_verifier
def test_rules_that_coincide(pair, own, verifier):
    rows, made = own
    row_prompts = [rows.prompt[j, : rows.prompt_length[j]].tolist() for j in range(toys.BATCH // 2)]
    one_rule = ("opt", "diff", "token_v1")
    lossless = ("lossy", "lenient", "spec")
    requests, batch = [], []
    for j, alpha in enumerate((-0.2, -0.1, 0.0, 0.05, 0.15, 0.3)):
        batch += [row_prompts[j]] * 6
        requests += [(name, {"alpha": alpha}) for name in one_rule]
        share = (j + 1) / 7
        requests += [(name, {} if name == "spec" else {"alpha": share}) for name in lossless]
    found = decode(pair, verifier, batch, requests)
    between = 0
    for i in range(0, len(requests), 6):
        assert found[i] == found[i + 1] == found[i + 2], requests[i]
        assert found[i + 3] == found[i + 4] == found[i + 5], requests[i + 3]
        j = i // 6
        assert found[i + 5] == made["expert"][j]
        between += found[i] not in (made["expert"][j], made["drafter"][j])
    assert between > 1  # the shared rule was neither model's text


@pytest.mark.parametrize("pair", ["decoder_only"], indirect=True)
def test_both_verifiers_give_one_greedy_text(pair):
    index = np.arange(toys.BATCH) % len(toys.NAMES)
    rows = toys.greedy_rows(toys.prompts(seed=4), rule_index=index)
    token, block = (
        generate(pair.decoder(verifier), pair.params, toys.all_rules(), rows)
        for verifier in ("token", "block")
    )
    random = np.asarray(rows.rule_index) == toys.NAMES.index("mixture")  # at temperature 0 too
    for b in np.flatnonzero(~random):
        assert toys.texts(token)[b] == toys.texts(block)[b]
        assert token.stats.expert_calls[b] == block.stats.expert_calls[b]
    assert toys.texts(token) != toys.texts(block)


def test_spec_alone_gives_the_experts_text(pair):
    rows = toys.greedy_rows(toys.prompts(seed=3))
    params = pair.close_params
    out = generate(pair.spec_decoder, params, toys.SPEC, rows)
    alone = autoregressive(pair.expert, params["expert"], rows, toys.ROOM, logprobs=True)
    assert toys.texts(out) == toys.texts(alone)
    assert toys.ROOM / (toys.SIZE + 1) < out.stats.expert_calls.mean() < toys.ROOM
    np.testing.assert_allclose(
        out.expert_logprob[:, : toys.ROOM], alone.expert_logprob[:, : toys.ROOM], atol=2e-4
    )


def test_the_reference_agrees_that_spec_is_greedy(pair):
    # The reference decoder itself, against a model that it did not drive.
    rows = toys.greedy_rows(toys.prompts(seed=3))
    params = pair.close_params
    alone = autoregressive(pair.expert, params["expert"], rows, toys.ROOM, logprobs=True)
    assert reference.decode(pair.spec_decoder, params, toys.SPEC, rows).tokens == toys.texts(alone)
