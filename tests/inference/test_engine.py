import dataclasses

import numpy as np
import pytest

from speccascade.errors import UserError
from speccascade.inference.engine import Engine, program, rule_kind
from speccascade.inference.reading import setting
from tests import tiny_pair

COMMON = {"draft_length": 2, "temperature": 1.0}


@pytest.fixture(scope="module")
def engine():
    pair = tiny_pair.make()
    return Engine.build(pair, [pair.tokenizer.encode(tiny_pair.PROMPT)], max_new_tokens=6)


def decode(engine, settings, kinds):
    """Decodes the same prompt under each setting, in a batch of eight."""
    request = engine.request([5, 6, 7], 100, "it")
    return engine.prepare([*settings, *settings[:1] * (8 - len(settings))], [request] * 8, kinds)()


def decoded(engine, settings, kinds):
    """Returns the tokens of each setting."""
    output = decode(engine, settings, kinds)
    tokens = np.asarray(output.tokens).tolist()
    return [tuple(tokens[i][: output.num_tokens[i]]) for i in range(len(settings))]


def test_a_mixed_batch_decodes_every_row_under_its_own_setting(engine):
    settings = [
        setting({"rule": "token_v3", "alpha": 0.1, **COMMON}),
        setting({"rule": "token_v3", "alpha": 0.9, **COMMON}),
        setting({"rule": "mixture", "alpha": 0.5, **COMMON}),
        setting({"rule": "token_v3", "alpha": 0.1, **COMMON, "seed": 3}),
        setting({"rule": "token_v3", "alpha": 0.1, **COMMON, "temperature": 0.0}),
    ]
    kinds = [settings[0], settings[2]]
    assert len({program(s) for s in settings}) == 1
    mixed = decoded(engine, settings, kinds)
    assert len(set(mixed)) >= 3
    for s, tokens in zip(settings, mixed, strict=True):
        assert decoded(engine, [s] * 8, kinds) == [tokens] * 8


def test_programs_are_shared_by_all_that_can_share_one():
    def of(**fields):
        return program(setting({"rule": "token_v3", "alpha": 0.1, **COMMON, **fields}))

    base = of()
    assert of(alpha=0.5) == of(seed=2) == of(temperature=0.0) == of(rule="opt") == base
    different = [
        of(draft_length=3),
        of(verifier="block"),
        of(expert_top_p=0.5),
        of(drafter_top_p=0.5),
        program(setting({"rule": "spec", **COMMON})),  # needs no drafter pass at the bonus position
        program(setting({"method": "autoregressive_expert"})),
        program(setting({"method": "token_cascade", "rule": "chow", "alpha": 0.1})),
    ]
    assert len({base, *different}) == len(different) + 1
    assert of(expert_top_p=0.5) == of(expert_top_p=0.6) != of(expert_top_k=3)


def test_static_knobs_make_rules_of_their_own():
    entry = {"rule": "topk_relaxed", "alpha": 0.1, **COMMON}
    assert rule_kind(setting(entry)) == rule_kind(setting({**entry, "alpha": 0.3}))
    assert rule_kind(setting(entry)) != rule_kind(setting({**entry, "k": 2}))


def test_methods_agree_where_they_must(engine):
    def of(**entry):
        chosen = setting(entry)
        return decoded(engine, [chosen], [chosen])

    expert = of(method="autoregressive_expert")
    drafter = of(method="autoregressive_drafter")
    assert expert != drafter
    assert of(method="token_cascade", rule="chow", alpha=-0.01) == expert
    assert of(method="token_cascade", rule="chow", alpha=1) == drafter
    assert of(method="sequence_cascade", threshold=1) == expert
    assert of(method="sequence_cascade", threshold=-1e9) == drafter
    # The drafter decodes in the expert's place; its own truncation goes with it.
    assert of(method="autoregressive_drafter", drafter_top_k=1, temperature=1.0) == drafter


def test_calls_are_booked_to_the_model_that_made_them(engine):
    for who, other in (("expert", "drafter"), ("drafter", "expert")):
        chosen = setting({"method": f"autoregressive_{who}"})
        stats = decode(engine, [chosen], [chosen]).stats.by_name()
        assert np.all(stats["emitted"] >= 1)
        np.testing.assert_array_equal(stats[f"{who}_calls"], stats["emitted"])
        np.testing.assert_array_equal(stats.get(f"{other}_calls", 0), 0)


def test_prompts_without_room_are_refused(engine):
    with pytest.raises(UserError, match="the question is empty"):
        engine.request([], 0, "the question")
    with pytest.raises(UserError, match="it has 300 tokens and the pair a context of 300"):
        engine.request([5] * 300, 0, "it")
    assert engine.request([5] * 297, 0, "the question").max_new_tokens == 3
    with pytest.raises(UserError, match="max_new_tokens=0 must be at least 1"):
        Engine.build(engine.pair, [[5]], 0)


def test_text_ends_before_a_stop_string(engine):
    pair = engine.pair
    stopping = Engine.build(pair, [[5]], 8, stop_strings=("##",))
    tokens = pair.tokenizer.encode("12 ## 13")
    assert stopping.text(tokens) == "12 " and engine.text(tokens) == "12 ## 13"


# ---- no model that drafts ----

LOOKUP = {"draft_length": 2, "drafter": "lookup"}


def test_greedy_spec_over_lookup_is_the_expert_with_and_without_a_drafter(engine):
    both = engine.pair
    own = {"models": {"expert": both.expert}, "params": {"expert": both.params["expert"]}}
    alone = dataclasses.replace(both, **own)
    assert alone.roles == ("expert",)
    spec = setting({"rule": "spec", **LOOKUP})
    by_expert = setting({"method": "autoregressive_expert"})
    expected = decoded(engine, [by_expert], [by_expert])
    for own in (engine, dataclasses.replace(engine, pair=alone)):
        assert decoded(own, [spec], [spec]) == expected
    stats = decode(engine, [spec], [spec]).stats.by_name()
    assert "drafter_calls" not in stats
    assert spec.method.scored(spec, {k: float(v[0]) for k, v in stats.items()}) == {
        "expert": 3 * stats["expert_calls"][0]
    }


def test_lookups_are_programs_of_their_own_and_rules_share_them():
    def of(**fields):
        entry = {"rule": "token_v3", "alpha": 0.1, **LOOKUP, **fields}
        return program(setting({k: v for k, v in entry.items() if v is not None}))

    assert of() == of(alpha=0.4) == of(rule="typical") == of(max_ngram=3)
    different = [of(max_ngram=4), of(drafter=None), of(draft_length=3), of(verifier="block")]
    assert len({of(), *different}) == 5


@pytest.mark.parametrize(
    "entry",
    [
        {"rule": "spec", "draft_length": 2},
        {"rule": "drafter", "draft_length": 2},
        {"method": "autoregressive_drafter"},
        {"method": "token_cascade", "rule": "chow", "alpha": 0.1},
        {"method": "sequence_cascade", "threshold": -1.0},
    ],
    ids=str,
)
def test_an_expert_alone_refuses_what_needs_a_drafting_model(engine, entry):
    pair = dataclasses.replace(engine.pair, models={"expert": engine.pair.expert})
    alone, chosen = dataclasses.replace(engine, pair=pair), setting(entry)
    with pytest.raises(UserError, match="needs a model that drafts and pair tiny is an expert"):
        alone.check(chosen)
    with pytest.raises(UserError, match="or let the setting draft without: drafter=lookup"):
        decode(alone, [chosen], [chosen])


# ---- three models ----

THREE = {"rule": "token_v3", "alpha": 0.4, "middle_draft_length": 2, **COMMON}


@pytest.fixture(scope="module")
def three():
    pair = tiny_pair.make(roles=tiny_pair.MIDDLE)
    return Engine.build(pair, [pair.tokenizer.encode(tiny_pair.PROMPT)], max_new_tokens=6)


def test_middle_knobs_go_by_row(three):
    over = {"rule": "drafter", "middle_rule": "chow", "middle_draft_length": 2, "draft_length": 2}
    settings = [setting({**over, "middle_alpha": alpha}) for alpha in (1, -1)]
    assert len({program(s) for s in settings}) == 1
    output = decode(three, settings, settings[:1])
    assert np.all(np.asarray(output.stats.drafter_calls["middle"]) >= output.stats.expert_calls)
    # The middle rule never defers in one row and always does in the other.
    alone = setting({"method": "autoregressive_drafter"})
    as_drafter = {**three.pair.params, "drafter": three.pair.params["middle"]}
    models = {**three.pair.models, "drafter": three.pair.models["middle"]}
    swapped = dataclasses.replace(three.pair, models=models, params=as_drafter)
    middle = dataclasses.replace(three, pair=swapped)
    expected = decoded(three, [alone], [alone]) + decoded(middle, [alone], [alone])
    assert decoded(three, settings, settings[:1]) == expected
    assert len(set(expected)) == 2


def test_greedy_spec_over_spec_is_the_expert(three):
    greedy = {"temperature": 0.0, "draft_length": 2}
    over = {"middle_rule": "spec", "middle_draft_length": 2}
    spec = setting({"rule": "spec", **over, **greedy})
    alone = setting({"method": "autoregressive_expert"})
    assert decoded(three, [spec], [spec]) == decoded(three, [alone], [alone])


def test_two_model_settings_of_three_ignore_the_middle(engine, three):
    spec = setting({"rule": "token_v3", "alpha": 0.4, **COMMON})
    kinds = [spec, setting({"rule": "mixture", "alpha": 0.5, **COMMON})]
    output = decode(three, [spec], kinds)
    assert list(output.stats.drafter_calls) == ["drafter"]
    assert decoded(engine, [spec], kinds) == decoded(three, [spec], kinds)


def test_a_middle_rule_needs_a_middle_model(engine):
    chosen = setting({**THREE, "middle_rule": "spec"})
    with pytest.raises(UserError, match="pair tiny has no middle model; give the pair one"):
        engine.check(chosen)
    with pytest.raises(UserError, match="has no middle model"):
        decode(engine, [chosen], [chosen])


def test_middle_rules_and_lengths_are_programs_of_their_own():
    def of(**fields):
        return program(setting({**THREE, "middle_rule": "token_v3", "middle_alpha": 0.1, **fields}))

    assert of() == of(middle_alpha=0.5) == of(rule="opt")
    two = program(setting({"rule": "token_v3", "alpha": 0.4, **COMMON}))
    other = setting({**THREE, "middle_rule": "chow", "middle_alpha": 0.1})
    assert len({of(), of(middle_draft_length=3), program(other), two}) == 4
