"""What the model class does, without the library that asks for it."""

import dataclasses

import pytest

import speccascade
from speccascade.errors import UserError
from speccascade.lm_eval import requests
from speccascade.lm_eval.arguments import read
from speccascade.lm_eval.backend import Backend
from speccascade.text import load as load_tokenizer
from tests import chat_pair
from tests.text import makers

SPEC = {"pair": "x", "rule": "spec", "draft_length": 2}
# Tests ask four at a time, which end at one character: they share what was compiled.
GREEDY = {"until": ["\n"], "do_sample": False, "max_gen_toks": 6}
CONTEXTS = ["Ann has 12 pens and buys 7 pens. ", "12 + 7 =", "costs", "7 pens and 12"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return chat_pair.make(tmp_path_factory.mktemp("tokenizer"), context_length=300)


def asked(kwargs, contexts=CONTEXTS):
    return [(context, kwargs) for context in contexts]


def test_answers_are_those_of_the_library(pair):
    found = Backend(pair, read(SPEC)).generate(asked(GREEDY))
    how = {"rule": "spec", "draft_length": 2, "stop_strings": "\n"}
    expected = speccascade.generate_text(pair, CONTEXTS, max_new_tokens=6, **how)
    assert found == [answer.text for answer in expected]


@pytest.mark.slow
def test_rows_are_given_the_next_context(pair):
    cascade = {**SPEC, "rule": "token_v3", "alpha": 0.2}
    kwargs = {**GREEDY, "do_sample": True, "temperature": 1.0}
    found = Backend(pair, read(cascade)).generate(asked(kwargs))
    assert Backend(pair, read({**cascade, "batch_size": 2})).generate(asked(kwargs)) == found


def test_each_request_ends_where_it_asks_to(pair):
    backend = Backend(pair, read(SPEC))
    whole = backend.generate(asked(GREEDY))
    stop = next(c for text in whole for c in text[2:] if c.isascii())
    found = backend.generate(asked({**GREEDY, "until": stop}))
    assert found == [text.partition(stop)[0] for text in whole] != whole
    short = backend.generate([*asked(GREEDY)[:3], (CONTEXTS[3], {**GREEDY, "max_gen_toks": 2})])
    assert short[:3] == whole[:3]
    assert whole[3].startswith(short[3].rstrip("\ufffd")) and len(short[3]) < len(whole[3])


def test_noise_goes_by_context_and_repetition(pair):
    backend = Backend(pair, read({**SPEC, "seed": 3}))
    warm = {"until": "\n", "do_sample": True, "temperature": 1.0, "max_gen_toks": 6}
    found = backend.generate([(CONTEXTS[1], warm)] * 4)
    assert len(set(found)) > 1
    among = [(CONTEXTS[0], warm), (CONTEXTS[1], warm), (CONTEXTS[1], GREEDY), (CONTEXTS[1], warm)]
    again = backend.generate(among)
    assert [again[1], again[3]] == found[:2]
    assert Backend(pair, read({**SPEC, "seed": 4})).generate([(CONTEXTS[1], warm)] * 4) != found


def test_a_context_and_what_follows_are_one_text(pair):
    backend = Backend(pair, read(SPEC))
    whole = pair.tokenizer.encode("7 pens and 12")
    for context, following in (("7 pens ", "and 12"), ("7 pens", " and 12"), ("", "7 pens and 12")):
        prompt, answer = backend._split(context, following)
        own = list(prompt) if context else []
        assert own + list(answer) == whole and len(prompt) > 0
    (text,) = backend.loglikelihood_rolling(["7 pens and 12"])
    ((empty, _),) = backend.loglikelihood([("", "7 pens and 12")])
    assert text == pytest.approx(empty, abs=1e-4) and text < 0


def test_a_special_token_ends_an_answer(pair):
    """One token more is made to end an answer; its name is one that no text spells."""
    how = {"rule": "spec", "draft_length": 2, "stop_strings": "\n"}
    (first, *_) = speccascade.generate_text(pair, CONTEXTS, max_new_tokens=6, **how)
    at = next(i for i, token in enumerate(first.tokens) if i and token not in first.tokens[:i])
    special = pair.tokenizer.special
    try:
        special["\x01"] = first.tokens[at]
        (cut, *_) = Backend(pair, read(SPEC)).generate(asked({**GREEDY, "until": ["\x01"]}))
    finally:
        del special["\x01"]
    assert cut == pair.tokenizer.decode(first.tokens[: at + 1]) != first.text


def test_conversations(pair, caplog):
    backend = Backend(pair, read(SPEC))
    tokenizer = pair.tokenizer
    messages = [{"role": "user", "content": "12 + 7? <|im_end|>"}]
    context = backend.chat(messages)
    assert context == tokenizer.chat(messages)
    ids = tokenizer.encode_chat(messages)
    assert backend._prompt(context) == ids
    # The answer's beginning may be given.
    opened = backend.chat([*messages, {"role": "assistant", "content": "It is"}], answers=False)
    assert opened == context + "It is"
    assert backend._prompt(opened) == ids + tokenizer.encode("It is")
    assert backend._split(context, "It is") == (ids, tokenizer.encode("It is"))
    # A conversation that another process wrote out is a text like any other.
    backend._warn([context, "12"])
    assert not caplog.text
    Backend(pair, read(SPEC))._warn([context, "12"])
    assert "1 contexts spell special tokens, which are read as text" in caplog.text


def test_what_is_too_long_is_cut_at_the_left(pair, caplog):
    backend = Backend(pair, read(SPEC))
    long = "7 pens and 12 " * 100
    ids = backend._prompt(long)
    one = requests.read(GREEDY, (), None, 5)
    assert backend._fitted([long, "12"], [one, one]) == [ids[-294:], backend._prompt("12")]
    assert "1 of 2 contexts are too long and were cut at the left" in caplog.text
    assert backend._cut(ids, [1, 2]) == (ids[-298:], [1, 2])


def test_what_cannot_be(pair, tmp_path):
    tokenizer = load_tokenizer(makers.byte_level(tmp_path, chat_template=None))
    plain = Backend(dataclasses.replace(pair, tokenizer=tokenizer), read(SPEC))
    with pytest.raises(UserError, match="pair tiny chat has no chat template; leave out --apply_"):
        plain.chat([{"role": "user", "content": "Hi"}])
    with pytest.raises(UserError, match="max_gen_toks=300 leaves no room for a context; lower it"):
        plain.generate([("Hi", {"max_gen_toks": 300})])
    with pytest.raises(UserError, match="a continuation has .* tokens and leaves no room for its"):
        plain.loglikelihood([("Hi", " pens" * 300)])
    whole = Backend(pair, read({"pair": "x", "method": "sequence_cascade", "threshold": -0.5}))
    for ask in (whole.loglikelihood, whole.loglikelihood_rolling):
        with pytest.raises(UserError, match="has no log-likelihoods"):
            ask([])
    with pytest.raises(UserError, match="names a drafter that pair tiny chat has not"):
        Backend(pair, read({**SPEC, "drafter": "other"}))
    with pytest.raises(UserError, match="nowhere"):
        Backend.load({**SPEC, "pair": "/nowhere"})
