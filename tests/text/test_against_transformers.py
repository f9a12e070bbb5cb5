"""Encodings and rendered chats, compared with those of `transformers`."""

import pytest

from speccascade import text
from tests.text import makers

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

PLAIN = [s for s in makers.STRINGS if "<" not in s]
CHATS = [
    [{"role": "user", "content": "  Who is Buzz Aldrin?\n"}],
    [
        {"role": "user", "content": "12 + 7?"},
        {"role": "assistant", "content": "19"},
        {"role": "user", "content": "é日\n\nthen?"},
    ],
]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "unigram"])
def test_tokenizer_json(tmp_path, kind):
    directory = getattr(makers, kind)(tmp_path)
    ours = text.load(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(str(directory))
    for string in PLAIN:
        assert ours.encode(string) == theirs.encode(string, add_special_tokens=False), string
        assert ours.encode(string, bos=True) == theirs.encode(string), string
    ids = ours.encode("Ann has 12 pens. 日")
    assert ours.decode(ids, begins=True) == theirs.decode(ids, skip_special_tokens=True)
    assert theirs.eos_token_id == ours.eos_ids[0]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize("messages", CHATS)
def test_chats(tmp_path, kind, messages):
    directory = getattr(makers, kind)(tmp_path)
    ours = text.load(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(str(directory))
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.chat(messages) == rendered
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.encode_chat(messages) == list(ids)
