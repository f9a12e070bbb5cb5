import json
import math

import pytest

from speccascade.errors import UserError
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.methods import METHODS
from speccascade.inference.reading import expand, from_fields, setting
from speccascade.inference.setting import ByModel, Setting, digest
from speccascade.inference.sweep import product

SPECULATIVE = {"rule": "token_v3", "alpha": 0.3, "draft_length": 5}


def test_entry_becomes_a_setting():
    assert setting({**SPECULATIVE, "expert_top_p": 0.9, "temperature": 1, "seed": 2}) == Setting(
        method=METHODS["speculative"],
        rule="token_v3",
        knobs=(("alpha", 0.3),),
        draft_length=5,
        verifier="token",
        temperature=1.0,
        expert_truncation=(("top_p", 0.9),),
        seed=2,
    )


def test_defaults_of_knobs_are_part_of_the_setting():
    bild = setting({"rule": "bild", "alpha": 2, "draft_length": 10})
    assert bild.knobs == (("alpha", 2.0), ("fallback", 0.6))
    relaxed = setting({"rule": "topk_relaxed", "alpha": 0.1, "draft_length": 3})
    assert relaxed.knobs == (("alpha", 0.1), ("k", 5))


def test_sequential_methods():
    cascade = setting({"method": "token_cascade", "rule": "chow", "alpha": 0.2})
    assert (cascade.draft_length, cascade.verifier) == (None, None)
    assert cascade.label == "token_cascade chow"
    sequence = setting({"method": "sequence_cascade", "threshold": -0.5})
    assert (sequence.rule, sequence.knobs) == (None, (("threshold", -0.5),))


@pytest.mark.parametrize(
    "given",
    [
        {"method": ["speculative"]},
        {"method": None},
        {"rule": ["spec"]},
        {"rule": {"spec": 1}},
        {"verifier": ["block"]},
        {"drafter": ["lookup"]},
        {"seed": None},
        {"temperature": 1e300},
    ],
    ids=repr,
)
def test_a_field_of_another_kind_is_named(given):
    (field,) = given
    with pytest.raises(UserError, match=rf"^setting .*: {field}\W.* (unknown|must be)"):
        setting({**SPECULATIVE, **given})


@pytest.mark.parametrize("given", [None, 5, "spec", SPECULATIVE, ["spec"], [[("rule", "spec")]]])
def test_what_is_no_list_of_settings(given):
    with pytest.raises(UserError, match="^evaluate.settings must be a list of settings"):
        expand(given)


def test_grid_keeps_order_and_drops_repetitions():
    grid = product(rule="token_v3", alpha=(0.3, 0.1), draft_length=(3, 5))
    found = expand(grid + grid)
    assert [(dict(s.knobs)["alpha"], s.draft_length) for s in found] == [
        (0.3, 3),
        (0.3, 5),
        (0.1, 3),
        (0.1, 5),
    ]


def test_fields_survive_json():
    for entry in (
        {**SPECULATIVE, "expert_top_k": 4, "drafter_min_p": 0.1},
        {"method": "sequence_cascade", "threshold": -1},
        {"method": "autoregressive_expert"},
    ):
        chosen = setting(entry)
        row = json.loads(json.dumps({**chosen.fields(), "quality": 1.0}))
        assert from_fields(row) == chosen


def test_label_is_the_registry_name_and_choices_the_rest():
    chosen = setting({**SPECULATIVE, "expert_top_p": 0.9, "verifier": "block"})
    assert chosen.label == "token_v3, expert top_p"
    assert chosen.choices == "alpha=0.3 top_p=0.9 N=5 block"
    assert str(chosen) == "token_v3, expert top_p alpha=0.3 top_p=0.9 N=5 block T=0"


N = {"middle_draft_length": 2}
THREE = {**SPECULATIVE, "middle_rule": "token_v3", "middle_alpha": 0.2, "middle_draft_length": 2}


def test_a_middle_rule_has_knobs_and_a_label_of_its_own():
    chosen = setting(THREE)
    assert (chosen.drafting.rule, chosen.drafting.draft_length) == ("token_v3", 2)
    assert (chosen.knobs, chosen.drafting.knobs) == ((("alpha", 0.3),), (("alpha", 0.2),))
    assert chosen.label == "token_v3 over token_v3"
    assert chosen.choices == "alpha=0.3 N=5 middle_alpha=0.2 n=2 token"
    assert from_fields(json.loads(json.dumps(chosen.fields()))) == chosen
    spec = setting({"rule": "spec", "draft_length": 3, "middle_rule": "spec", **N})
    assert from_fields(json.loads(json.dumps(spec.fields()))) == spec


LOOKUP = {**SPECULATIVE, "drafter": "lookup"}


def test_a_drafter_without_a_model_has_a_name_and_parameters():
    chosen = setting(LOOKUP)
    assert chosen.drafting == ByLookup(max_ngram=3, min_ngram=1)
    assert chosen.label == "token_v3 over lookup"
    assert chosen.choices == "alpha=0.3 N=5 max_ngram=3 min_ngram=1 token"
    assert from_fields(json.loads(json.dumps(chosen.fields()))) == chosen
    other = setting({**LOOKUP, "max_ngram": 5, "min_ngram": 2})
    assert other.drafting == ByLookup(max_ngram=5, min_ngram=2)
    assert from_fields(json.loads(json.dumps(other.fields()))) == other


def test_rows_of_a_drafting_model_are_those_of_before():
    fields = setting(SPECULATIVE).fields()
    assert list(fields) == [
        "method",
        "rule",
        "knobs",
        "draft_length",
        "verifier",
        "temperature",
        "drafter_truncation",
        "expert_truncation",
        "seed",
    ]
    assert from_fields(fields) == setting(SPECULATIVE)
    assert setting({**SPECULATIVE, "drafter": None}) == setting(SPECULATIVE)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**LOOKUP, "drafter": 5}, "drafter=5 must be the name of a model"),
        ({**SPECULATIVE, "drafter": "expert"}, "drafter=expert drafts nothing"),
        ({**LOOKUP, "otherwise": "expert"}, "otherwise=expert drafts nothing"),
        ({**THREE, "middle": "expert"}, "middle=expert drafts nothing"),
        ({**LOOKUP, "rule": "chow"}, "rule chow needs the drafter's distribution and a lookup"),
        ({"rule": "drafter", "draft_length": 2, "drafter": "lookup"}, "rule drafter needs the"),
        ({**LOOKUP, "max_ngram": 1, "min_ngram": 2}, "1 <= min_ngram <= max_ngram"),
        ({**LOOKUP, "max_ngram": 2.5}, "max_ngram=2.5 must be a whole number"),
        ({**LOOKUP, "drafter_top_k": 3}, "drafter_top_k does nothing to drafter=lookup"),
        ({**LOOKUP, **N, "middle_rule": "spec"}, "a middle_rule needs models that draft"),
        ({**SPECULATIVE, "max_ngram": 3}, "max_ngram unknown here"),
        ({"method": "autoregressive_expert", "drafter": "lookup"}, "drafter unknown here"),
        ({"method": "token_cascade", "rule": "chow", "alpha": 0.1, "drafter": "lookup"}, "unkn"),
    ],
)
def test_a_bad_drafter_is_one_clear_line(entry, message):
    with pytest.raises(UserError, match=message):
        setting(entry)


def test_a_cascade_may_be_of_other_models():
    chosen = setting({**THREE, "drafter": "small", "middle": "large"})
    assert chosen.drafting.models == ("small", "large")
    assert chosen.label == "token_v3 over token_v3 of small and large"
    assert from_fields(json.loads(json.dumps(chosen.fields()))) == chosen
    assert setting({**THREE, "drafter": "drafter", "middle": None}) == setting(THREE)
    assert not {"drafter", "middle"} & set(setting(THREE).fields())
    with pytest.raises(UserError, match="middle=3 must be the name of a model"):
        setting({**THREE, "middle": 3})
    with pytest.raises(UserError, match="middle unknown here"):
        setting({**SPECULATIVE, "middle": "large"})


NAMED = {
    "ngrams": {"drafter": "lookup", "max_ngram": 5},
    "deep": {"drafter": "small", "middle_rule": "spec", **N},
}


def test_a_drafter_that_the_pair_names_is_the_fields_that_it_stands_for():
    for name, own in NAMED.items():
        assert setting({**SPECULATIVE, "drafter": name}, NAMED) == setting({**SPECULATIVE, **own})
    both = [{**SPECULATIVE, "drafter": name} for name in (*NAMED, "ngrams", "lookup", "small")]
    found = [s.drafting for s in expand(both, NAMED)]
    assert found[0] == ByLookup(5) and found[2:] == [ByLookup(), ByModel("small")]
    with pytest.raises(UserError, match="drafter=ngrams.*drafter ngrams has a max_ngram already"):
        setting({**SPECULATIVE, "drafter": "ngrams", "max_ngram": 2}, NAMED)
    with pytest.raises(UserError, match="rule chow needs the drafter's distribution"):
        setting({**SPECULATIVE, "rule": "chow", "drafter": "ngrams"}, NAMED)


def test_two_models_leave_the_middle_out_of_their_fields():
    fields = setting(SPECULATIVE).fields()
    assert not [name for name in fields if name.startswith("middle_")]
    assert setting({**SPECULATIVE, "middle_rule": None}) == setting(SPECULATIVE)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**SPECULATIVE, "middle_rule": "spec"}, "no middle_draft_length"),
        ({**SPECULATIVE, **N}, "a middle_draft_length and no middle_rule"),
        ({**THREE, "middle_draft_length": 0}, "middle_draft_length=0 must be at least 1"),
        ({**SPECULATIVE, **N, "middle_rule": "chow"}, "chow needs middle_alpha"),
        ({**SPECULATIVE, **N, "middle_rule": "nonsense"}, "unknown; choose one of: chow"),
        ({**SPECULATIVE, **N, "middle_rule": "spec", "middle_alpha": 1}, "middle_alpha unknown"),
        ({**THREE, "rule": "token_v3", "middle_k": 1}, "middle_k unknown"),
        ({"method": "token_cascade", "rule": "chow", "alpha": 0.1, "middle_rule": "spec"}, "unkn"),
    ],
)
def test_a_bad_middle_rule_is_one_clear_line(entry, message):
    with pytest.raises(UserError, match=message):
        setting(entry)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**SPECULATIVE, "draft_length": 0}, "draft_length=0 must be at least 1"),
        ({"rule": "spec"}, "no draft_length"),
        ({"rule": "spec", "draft_len": 5}, "draft_len is unknown; did you mean draft_length"),
        ({"rul": "spec", "draft_length": 5}, "rul is unknown; did you mean rule"),
        ({**SPECULATIVE, "alpha": None, "alpah": 0.3}, "alpah is unknown; did you mean alpha"),
        ({**SPECULATIVE, "draft_length": 2.5}, "whole number"),
        ({**SPECULATIVE, "alpha": math.nan}, "alpha=nan must be a finite number"),
        ({**SPECULATIVE, "alpha": "0.3"}, "must be a finite number"),
        ({"rule": "token_v3", "draft_length": 5}, "token_v3 needs alpha"),
        ({"rule": "lossy", "alpha": 1.0, "draft_length": 5}, r"outside its domain \[0, 1\)"),
        ({"rule": "nonsense", "draft_length": 5}, "unknown; choose one of: chow"),
        ({"draft_length": 5}, "names no rule"),
        ({"method": "nonsense"}, "method 'nonsense' is unknown"),
        ({**SPECULATIVE, "verifier": "nonsense"}, "verifier 'nonsense' is unknown"),
        ({**SPECULATIVE, "expert_top_p": 0}, r"expert_top_p=0.0 must be in \(0, 1\]"),
        ({**SPECULATIVE, "drafter_top_k": 0}, "drafter_top_k=0 must be at least 1"),
        ({**SPECULATIVE, "expert_min_p": 1.5}, r"must be in \[0, 1\]"),
        ({**SPECULATIVE, "temperature": -1}, "temperature=-1.0 must be at least 0"),
        ({**SPECULATIVE, "temperature": math.inf}, "must be a finite number"),
        ({**SPECULATIVE, "seed": 0.5}, "seed=0.5 must be a whole number"),
        ({**SPECULATIVE, "alhpa": 0.1}, r"alhpa unknown here; did you mean alpha\?"),
        ({**SPECULATIVE, "methd": "speculative"}, r"methd unknown here; did you mean method\?"),
        ({**SPECULATIVE, "max_n": 1}, "max_n unknown here; known: alpha, "),
        ({3: 4}, "3 is no field; the names of fields are texts"),
        ({"method": "autoregressive_expert", "drafter_top_k": 3}, "drafter_top_k unknown here"),
        ({"method": "token_cascade", "rule": "opt", "alpha": 0.1}, "decide before the expert"),
        ({"method": "sequence_cascade"}, "no threshold"),
    ],
)
def test_bad_entries_are_one_line(entry, message):
    with pytest.raises(UserError, match=message) as caught:
        expand([entry])
    assert str(caught.value).startswith("setting ") and "\n" not in str(caught.value)


def test_an_empty_grid_is_refused():
    with pytest.raises(UserError, match="at least one setting"):
        expand([])


def test_digest_depends_on_content_alone():
    assert digest({"a": 1, "b": [0.5]}) == digest({"b": [0.5], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    with pytest.raises(ValueError):
        digest({"a": math.nan})
