import pytest

from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.lm_eval import arguments, requests

RULE = {"rule": "token_v3", "alpha": 0.3, "draft_length": 4}


def test_a_pair_and_a_setting():
    found = arguments.read({"pair": "shipped:x", **RULE, "batch_size": 8, "device": "cuda:0"})
    assert found == ("shipped:x", setting(RULE), None, 8, 256)
    parts = {"pair.drafter": "a", "pair.expert": "b", "pair.dtype": "bfloat16"}
    found = arguments.read(
        {**parts, "method": "autoregressive_expert", "temperature": 0.5, "max_gen_toks": 9}
    )
    assert found.source == {"drafter": "a", "expert": "b", "dtype": "bfloat16"}
    assert (found.temperature, found.max_new_tokens, found.setting.temperature) == (0.5, 9, 0.5)
    own = {"pair": "x", "rule": "spec", "draft_length": 2, "drafter": "lookup"}
    assert arguments.read(own).setting.drafting.name == "lookup"


@pytest.mark.parametrize(
    ("given", "most", "size"),
    [(None, None, 32), (1, None, 1), ("auto", None, 32), ("auto:4", 16, 16), ("7", None, 7)],
)
def test_batch_size(given, most, size):
    own = {"pair": "x", **RULE, "batch_size": given, "max_batch_size": most}
    assert arguments.read(own).batch_size == size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RULE, "model_args has no pair; give pair=shipped:NAME, pair=DIRECTORY, or two models"),
        ({"pair": "x", "pair.expert": "y", **RULE}, "has pair and pair.*; give one pair"),
        ({"pair": "x"}, "model_args: setting : it names no rule; give it one"),
        (
            {"pair": "x", "rule": "nonsense", "draft_length": 2},
            "model_args: setting rule=nonsense draft_length=2: rule 'nonsense' is unknown; choose",
        ),
        ({"pair": "x", **RULE, "rule": "lossy", "alpha": 2}, "model_args: .*alpha=2"),
        ({"pair": "x", **RULE, "pretrained": "y"}, "model_args: .*pretrained unknown here; known:"),
        ({"pair": "x", **RULE, "batch_size": "many"}, "batch_size='many' must be a whole number"),
        ({"pair": "x", **RULE, "batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"pair": "x", **RULE, "max_gen_toks": 0}, "max_gen_toks=0 must be at least 1"),
    ],
)
def test_bad_arguments(given, message):
    with pytest.raises(UserError, match=message):
        arguments.read(given)


@pytest.mark.parametrize(
    ("kwargs", "own", "temperature"),
    [
        ({}, None, 0.0),
        ({}, 0.7, 0.7),
        ({"do_sample": False, "temperature": 0.9}, None, 0.0),
        ({"do_sample": True}, None, 1.0),
        ({"do_sample": True}, 0.7, 0.7),
        ({"do_sample": True, "temperature": 0.9}, None, 0.9),
        ({"temperature": 0.9}, 0.9, 0.9),
        ({"temperature": 0, "top_p": 0.5, "num_beams": 1}, None, 0.0),
        ({"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}, None, 1.0),
    ],
)
def test_temperature(kwargs, own, temperature):
    assert requests.read(kwargs, (), own, 5) == ((), (), temperature, 5)


def test_where_an_answer_ends():
    kwargs = {"until": ["Q:", "", "</s>", "Q:"], "max_gen_toks": 7}
    assert requests.read(kwargs, {"</s>": 1}, None, 5) == (("Q:", "</s>"), ("</s>",), 0.0, 7)
    assert requests.read({"until": "\n", "max_new_tokens": 3}, (), None, 5)[::3] == (("\n",), 3)
    assert requests.read({"until": None}, (), None, 5).stop_strings == ()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"stop": "x"}, "generation_kwargs has unknown fields stop; known: do_sample, max"),
        ({"until": 3}, "until must be a list of texts, not 3"),
        ({"do_sample": "yes"}, "do_sample='yes' must be true or false"),
        ({"temperature": -1}, "temperature=-1.* must be at least 0"),
        ({"temperature": "warm"}, "temperature='warm' must be a"),
        ({"temperature": 1.0, "top_p": 0.9}, "top_p=0.9; give it to the setting, expert_top_p and"),
        ({"num_beams": 4}, "num_beams=4, which no setting has"),
        ({"max_gen_toks": 0}, "max_gen_toks=0 must be at least 1"),
        (
            {"do_sample": False},
            "temperature=0.7 in model_args and 0 in generation_kwargs; leave the first out, or "
            "give --gen_kwargs do_sample=true,temperature=0.7",
        ),
    ],
)
def test_bad_generation_kwargs(kwargs, message):
    with pytest.raises(UserError, match=message):
        requests.read(kwargs, (), 0.7 if "do_sample" in kwargs else None, 5)
