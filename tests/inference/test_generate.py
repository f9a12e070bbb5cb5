import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

import speccascade
from speccascade import pairs
from speccascade.errors import UserError
from speccascade.inference import generate
from tests import tiny_pair
from tests.tiny_pair import PROMPT

HOW = {"rule": "token_v3", "alpha": 0.3, "draft_length": 2}
# Asked eight at a time or alone, as other tests ask: what is compiled is shared.
EIGHT = [PROMPT, *"1234567"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("pair"))
    pairs.export(tiny_pair.make(), directory, {})
    return directory


def test_library(exported):
    pair = speccascade.load_pair(exported)
    how = {**HOW, "temperature": 1.0}
    first, second, *_ = speccascade.generate_text(pair, EIGHT, max_new_tokens=6, **how)
    assert isinstance(first, speccascade.Completion)
    assert 1 <= len(first.tokens) <= 6 and first.text == pair.tokenizer.decode(first.tokens)
    assert first.statistics["tokens"] == len(first.tokens)
    assert 1 <= second.statistics["tokens_per_expert_call"] <= 3
    assert first.tokens != second.tokens
    with pytest.raises(UserError, match="prompt 1 is empty"):
        speccascade.generate_text(pair, ["1", ""], **how)
    with pytest.raises(UserError, match="prompt 0 has .* tokens and the pair a context of 300"):
        speccascade.generate_text(pair, ["1" * 400], **how)
    with pytest.raises(UserError, match="give at least one"):
        speccascade.generate_text(pair, [], **how)
    with pytest.raises(UserError, match="alhpa unknown"):
        speccascade.generate_text(pair, ["1"], **how, alhpa=1)


def test_nan_is_an_error(exported):
    pair = pairs.load(exported)
    broken = {**pair.params, "expert": jax.tree.map(lambda x: x * np.nan, pair.params["expert"])}
    pair = dataclasses.replace(pair, params=broken)
    with pytest.raises(UserError, match="not finite"):
        speccascade.generate_text(pair, EIGHT, max_new_tokens=6, **HOW)


def from_flags(exported, **changes) -> list[speccascade.Completion]:
    config: ml_collections.ConfigDict = tiny_pair.get_config(exported)
    given = {"prompt": None, "prompts_file": None, "knobs": "{}", "fields": {}}
    return generate.from_flags(config, **{**given, "max_new_tokens": 6, **changes})


def test_prompts_come_from_flags_and_files(exported, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("How much?\n" * 7)
    fields = {"rule": "token_v3", "method": None, "draft_length": 2, "temperature": 0.0}
    found = from_flags(
        exported,
        prompt=PROMPT,
        prompts_file=str(path),
        fields=fields,
        knobs='{"alpha": 0.3}',
    )
    # The task's prompts end their question with a newline.
    prompts = [PROMPT + "\n", *["How much?\n"] * 7]
    pair = pairs.load(exported)
    assert found == speccascade.generate_text(pair, prompts, max_new_tokens=6, **HOW)


def test_without_a_task_the_models_read_the_prompt_as_it_is(exported):
    config = ml_collections.ConfigDict({"pair": exported})
    (found,) = generate.from_flags(
        config,
        prompt=PROMPT,
        prompts_file=None,
        knobs='{"alpha": 0.3}',
        fields={"rule": "token_v3", "draft_length": 2},
        max_new_tokens=6,
    )
    expected = speccascade.generate_text(pairs.load(exported), [PROMPT], max_new_tokens=6, **HOW)
    assert [found] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give --prompt or a --prompts_file"),
        ({"prompt": " "}, "--prompt is empty"),
        ({"prompts_file": "/nowhere"}, "/nowhere is missing"),
        ({"prompt": "1", "knobs": "nonsense"}, "--knobs=nonsense is no JSON"),
        ({"prompt": "1", "fields": {"draft_length": 0}}, "rule=spec draft_length=0: .* at least 1"),
        ({"prompt": "1", "fields": {"rule": "opt"}}, "rule=opt draft_length=5: .* needs alpha"),
        ({"prompt": "1", "fields": {"rule": "nonsense"}}, "rule 'nonsense' is unknown"),
        (
            {"prompt": "1", "fields": {"method": "kernel", "rule": "cactus"}},
            "rule=cactus draft_length=5: .* needs delta",
        ),
        ({"prompt": "1", "knobs": '{"expert_top_p": 0}'}, "expert_top_p=0.0 must be in"),
    ],
)
def test_bad_flags_are_one_line(exported, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        from_flags(exported, **changes)
    assert "\n" not in str(caught.value)


def test_one_text_is_one_prompt_and_one_stop_string(exported):
    pair = pairs.load(exported)
    (alone,) = speccascade.generate_text(pair, PROMPT, max_new_tokens=6, **HOW)
    assert [alone] == speccascade.generate_text(pair, [PROMPT], max_new_tokens=6, **HOW)
    stop = alone.text[2:5]
    assert len(stop) == 3
    found, same = (
        speccascade.generate_text(pair, PROMPT, max_new_tokens=6, stop_strings=s, **HOW)
        for s in (stop, [stop])
    )
    assert found == same and found[0].text == alone.text[: alone.text.index(stop)]


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        ([None], {}, r"prompts\[0\] must be a text, not None"),
        (["a", b"b"], {}, r"prompts\[1\] must be a text, not b'b' \(bytes\)"),
        (5, {}, "prompts must be a list of texts, not 5"),
        (["a \ud83d"], {}, r"prompts\[0\] holds half a surrogate pair"),
        ("a", {"stop_strings": [5]}, r"stop_strings\[0\] must be a text, not 5"),
        ("a", {"stop_strings": ""}, "a stop string is empty"),
        ("a", {"max_new_tokens": True}, "max_new_tokens=True must be a whole number, at least 1"),
        ("a", {"max_new_tokens": 2.0}, "max_new_tokens=2.0 must be a whole number, at least 1"),
        ("a", {"max_new_tokens": "2"}, "max_new_tokens=.2. must be a whole number, at least 1"),
        ("a", {"max_new_tokens": -1}, "max_new_tokens=-1 must be at least 1"),
    ],
)
def test_what_is_no_prompt_is_one_line(exported, prompts, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        speccascade.generate_text(pairs.load(exported), prompts, **changes, **HOW)
    assert "\n" not in str(caught.value)


def test_prompts_from_a_file_of_windows(exported, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfHow many?\r\nHow\xe2\x80\xa8much?\r\n")
    found = generate._prompts("\ufeffWho?", str(path))
    assert found == ["Who?", "How many?", "How\u2028much?"]
    path.write_bytes(b"How many?\n\n")
    with pytest.raises(UserError, match="prompts.txt line 2 is empty"):
        generate._prompts(None, str(path))


def test_numbers_of_any_size_and_kind(exported):
    pair = speccascade.load_pair(exported)

    def texts(**how):
        how = {"rule": "spec", "draft_length": 2, "temperature": 1.0, **how}
        return [a.tokens for a in speccascade.generate_text(pair, [PROMPT] * 8, **how)]

    plain = texts(seed=7, max_new_tokens=6)
    assert plain == texts(seed=np.int64(7), max_new_tokens=np.int32(6), draft_length=np.uint8(2))
    for k in (pair.tokenizer.vocab_size, 2**31, 10**20, np.uint64(2**63)):
        assert texts(seed=7, max_new_tokens=6, expert_top_k=k, drafter_top_k=k) == plain
    seeds = (7, -7, 2**31, 2**31 + 7, 2**32, 2**32 + 7, 2**64 + 7)
    assert len({str(texts(seed=seed, max_new_tokens=6)) for seed in seeds}) == len(seeds)
