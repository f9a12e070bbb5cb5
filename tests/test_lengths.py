"""How long prompts and answers may be: one limit of a decoder-only pair, two of the other kind."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speccascade import generate_text, pairs
from speccascade.errors import UserError
from speccascade.inference.engine import MOST_NEW_TOKENS, Engine
from speccascade.pairs.lengths import Lengths
from speccascade.text.prompt import Prompt
from tests import tiny_pair
from tests.importing import tiny_t5_checkpoint

HOW = {"rule": "spec", "draft_length": 3}


@pytest.fixture(scope="module")
def decoder_only():
    return tiny_pair.make()  # a context of 300


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    drafter, expert = (
        tiny_t5_checkpoint.write(folder / role, n_positions=512) for role in pairs.ROLES
    )
    return {"drafter": str(drafter), "expert": str(expert)}


@pytest.fixture(scope="module")
def t5(checkpoints):
    return pairs.load(checkpoints)


def lengths(pair, prompt, room, **how):
    """Returns how many tokens a prompt of so many has, and its answer, and whether it ended."""
    text = "a" * (prompt - len(pair.encode_prompts([""])[0]))
    assert len(pair.encode_prompts([text])[0]) == prompt
    (answer,) = generate_text(pair, [text], max_new_tokens=room, **how)
    assert answer.statistics["prompt_cut"] == 0
    return len(answer.tokens), answer.statistics["finished"]


def test_t5_has_no_limit_of_its_own(t5):
    """Prompts and answers are longer than the 512 tokens that it was trained with."""
    assert t5.context_length is None
    sizes = (5, 512, 700)
    texts = ["a" * (size - len(t5.encode_prompts([""])[0])) for size in sizes]
    assert tuple(map(len, t5.encode_prompts(texts))) == sizes
    for answer in generate_text(t5, texts, max_new_tokens=530, **HOW):
        assert answer.statistics["prompt_cut"] == 0
        assert (len(answer.tokens), answer.statistics["finished"]) == (530, False)


def test_an_endless_answer_is_refused_where_nothing_limits_it(checkpoints, t5):
    with pytest.raises(UserError, match="max_new_tokens=1000000000 and pair .* answer_length"):
        generate_text(t5, ["a"], max_new_tokens=10**9, **HOW)
    limited = pairs.load({**checkpoints, "answer_length": 7})
    assert lengths(limited, 5, 10**9, method="autoregressive_expert") == (7, False)
    assert Engine.build(t5, [[5]], MOST_NEW_TOKENS).max_new_tokens == MOST_NEW_TOKENS


@pytest.mark.parametrize(
    ("given", "prompt", "answer"),
    [
        ({"context_length": 40}, 40, 40),
        ({"context_length": 40, "prompt_length": 50}, 50, 40),
        ({"context_length": 40, "answer_length": 9}, 40, 9),
        ({"prompt_length": 30}, 30, None),
        ({"answer_length": 30}, None, 30),
    ],
)
def test_two_limits_of_an_encoder_decoder(checkpoints, given, prompt, answer, tmp_path):
    pair = pairs.load({**checkpoints, **given})
    assert pair.lengths == Lengths(prompt, answer, None)
    pairs.export(pair, tmp_path, {})
    assert pairs.load(str(tmp_path)).lengths == pair.lengths
    ids = [5] * (prompt or 100)
    request = Engine.build(pair, [ids], 50).request(ids, 0, "it")
    assert request.max_new_tokens == min(answer or 50, 50)
    if prompt is not None:
        message = f"it has {prompt + 1} tokens and the pair takes prompts of at most {prompt}"
        with pytest.raises(UserError, match=message):
            Engine.build(pair, [ids], 50).request([*ids, 5], 0, "it")


@pytest.mark.parametrize("prompt", [200, 296, 299])
def test_one_limit_of_a_decoder_only_pair(decoder_only, prompt):
    ids = [5] * prompt
    engine = Engine.build(decoder_only, [ids], 10)
    assert engine.request(ids, 0, "it").max_new_tokens == min(10, 300 - prompt)
    ids = [5] * 300
    with pytest.raises(UserError, match="it has 300 tokens and the pair a context of 300"):
        engine.request(ids, 0, "it")
    shorter = dataclasses.replace(decoder_only, prompt_length=250, answer_length=8)
    engine = Engine.build(shorter, [ids], 10**9)
    assert engine.max_new_tokens == 8
    assert engine.request(ids[:250], 0, "it").max_new_tokens == 8
    with pytest.raises(UserError, match="it has 251 tokens and the pair takes .* at most 250"):
        engine.request(ids[:251], 0, "it")


SIZES = st.none() | st.integers(1, 20)


@given(SIZES, SIZES, SIZES, st.integers(1, 30), st.integers(0, 30))
def test_limits_agree_with_one_another(prompt, answer, together, wanted, read):
    limits = Lengths(prompt, answer, together)

    def fits(read, written):
        return (
            (prompt is None or read <= prompt)
            and (answer is None or written <= answer)
            and (together is None or read + written <= together)
        )

    longest = limits.longest_answer
    assert longest is None or not fits(0, longest + 1)
    assert fits(0, wanted if longest is None else min(wanted, longest))
    assert (limits.refusal(read) is None) == fits(read, 1)
    if limits.refusal(read) is None:
        room = limits.for_answer(read)
        assert room is None or (fits(read, room) and not fits(read, room + 1))
    most = limits.for_prompt(wanted)
    written = wanted if longest is None else min(wanted, longest)
    assert most is None or not fits(most + 1, written)
    assert (most if most is not None else 30) == 0 or fits(1 if most is None else most, written)


@pytest.mark.parametrize("room", [6, 100, 250])
def test_a_marked_part_makes_room_for_the_answer(decoder_only, t5, checkpoints, room):
    before, after = "Ann has ", "\nHow many?\n"
    prompt = Prompt(before + "pens, " * 400 + after, len(before), len(before) + 2400)
    sided = pairs.load({**checkpoints, "prompt_length": 48})
    for pair, limit in ((decoder_only, 300 - room), (sided, 48), (t5, None)):
        (fitted,) = pair.fit_prompts([prompt], room)
        (whole,) = pair.encode_prompts([prompt])
        assert fitted.cut == len(whole) - len(fitted.ids)
        if limit is None:
            assert fitted.ids == whole
            continue
        assert limit - 3 <= len(fitted.ids) <= limit
        text = pair.tokenizer.decode(fitted.ids)
        assert text.startswith(before) and text.endswith(after)
        assert fitted.cut > 0
        request = Engine.build(pair, [fitted.ids], room).request(*fitted[:1], 0, "it", fitted.cut)
        assert (request.max_new_tokens, request.cut) == (room, fitted.cut)


def test_a_completion_says_what_was_shortened(decoder_only):
    # Of other tests' shapes: eight prompts of at most 96 tokens.
    shorter = dataclasses.replace(decoder_only, context_length=102)
    prompts = [Prompt("Ann has " + "pens, " * 400, 8, 2408), *["How many?"] * 7]
    how = {"rule": "spec", "draft_length": 2, "max_new_tokens": 6}
    cut, whole, *_ = generate_text(shorter, prompts, **how)
    (fitted, *_) = shorter.fit_prompts(prompts, 6)
    assert cut.statistics["prompt_cut"] == fitted.cut > 0 == whole.statistics["prompt_cut"]
    for answer in (cut, whole):
        ended = answer.tokens[-1] in decoder_only.tokenizer.eos_ids
        assert answer.statistics["finished"] == ended and (ended or len(answer.tokens) == 6)


def test_a_prompt_too_long_without_its_marked_part_is_refused(decoder_only):
    text = "How many? " * 300
    with pytest.raises(UserError, match="prompt 0 has .* a context of 300"):
        generate_text(decoder_only, [Prompt(text + "pens", len(text), len(text) + 4)], **HOW)


@pytest.mark.parametrize("name", ["context_length", "prompt_length", "answer_length"])
@pytest.mark.parametrize("value", [0, -1, "long", 2.5, True])
def test_limits_are_whole_numbers(checkpoints, name, value):
    with pytest.raises(
        UserError, match=f"pair.{name}={value!r} must be (a whole number, )?at least"
    ):
        pairs.load({**checkpoints, name: value})
