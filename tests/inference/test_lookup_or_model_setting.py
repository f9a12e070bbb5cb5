"""A lookup joined with a model, as a setting names it: read, written, refused, and its texts."""

import pytest

from speccascade.errors import UserError
from speccascade.inference import api
from speccascade.inference.reading import from_fields, setting
from tests import tiny_pair

HOW = {"rule": "spec", "draft_length": 3, "drafter": "lookup", "otherwise": "drafter"}


def test_it_is_read_as_it_was_written():
    own = setting({**HOW, "max_ngram": 4, "drafter_top_k": 5})
    assert own.label == "spec over lookup or drafter, drafter top_k"
    assert from_fields(own.fields()) == own
    plain = setting({**HOW, "otherwise": None})
    assert plain.label == "spec over lookup" and from_fields(plain.fields()) == plain
    small = setting({**HOW, "otherwise": "small"})
    assert len({s.drafting.program for s in (own, plain, small)}) == 3


def test_a_pair_names_it():
    named = {"both": {"drafter": "lookup", "otherwise": "small", "min_ngram": 2}}
    own = setting({"rule": "spec", "draft_length": 3, "drafter": "both"}, named)
    assert own == setting({**HOW, "otherwise": "small", "min_ngram": 2})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drafter": None}, "otherwise='drafter' needs drafter=lookup"),
        ({"otherwise": 3}, "otherwise=3 must be the name of a model"),
        ({"rule": "chow", "alpha": 0.3}, "rule chow needs the drafter's distribution"),
        ({"middle_rule": "spec", "middle_draft_length": 1}, "middle_rule"),
        ({"min_ngram": 0}, "min_ngram=0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(UserError) as error:
        setting({**HOW, **changes})
    assert words in str(error.value)


def test_a_model_that_the_pair_has_not():
    for name in ("small", "lookup"):
        own = setting({**HOW, "otherwise": name})
        told = own.method.trouble(own, tiny_pair.make())
        assert f"otherwise={name} and pair tiny has no such model" in told
        assert told.endswith("choose one of: drafter")


def test_greedy_texts_are_those_of_spec():
    pair = tiny_pair.make()
    asked = {"draft_length": 2, "max_new_tokens": 6, "temperature": 0.0}
    prompts = [tiny_pair.PROMPT, "Twice two is four. Twice", *"123456"]  # eight, as others ask
    joined = api.generate_text(pair, prompts, **{**HOW, **asked})
    own = {key: value for key, value in HOW.items() if key not in ("drafter", "otherwise")}
    by_model = api.generate_text(pair, prompts, **{**own, **asked})
    assert [a.tokens for a in joined] == [a.tokens for a in by_model]
    calls = [sum(a.statistics["drafter_calls"] for a in found) for found in (joined, by_model)]
    assert 0 < calls[0] < calls[1]
