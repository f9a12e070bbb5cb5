"""What every kind of tokenizer must do, whatever its file."""

import hypothesis
import pytest
from hypothesis import strategies as st

from speccascade import text
from speccascade.errors import UserError
from speccascade.text import Tokenizer, gguf_vocabulary
from tests.text import makers

KINDS = ("own", "byte_level", "byte_fallback", "unigram", "bpe.model", "unigram.model", "gguf")
BYTES_EXACT = ("own", "byte_level", "gguf")  # byte-level: a text's bytes are its tokens' bytes
LOSSLESS = (*BYTES_EXACT, "byte_fallback", "bpe.model")


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> dict[str, Tokenizer]:
    root = tmp_path_factory.mktemp("tokenizers")
    found = {"own": text.train(makers.TEXTS, 300)}
    for kind in ("byte_level", "byte_fallback", "unigram"):
        found[kind] = text.load(getattr(makers, kind)(root / kind))
    for kind in ("bpe", "unigram"):
        directory = root / f"{kind}.model"
        directory.mkdir()
        (directory / "tokenizer.model").write_bytes(makers.sentence_piece(kind))
        if kind == "unigram":
            config = '{"tokenizer_class": "T5Tokenizer", "extra_ids": 3}'
            (directory / "tokenizer_config.json").write_text(config)
        found[directory.name] = text.load(directory)
    found["gguf"] = gguf_vocabulary.from_fields(makers.byte_level_fields(root / "fields"), "a test")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_special_token_text_is_text(every, kind):
    tokenizer = every[kind]
    unknown = tokenizer.special.get("<unk>")  # stands for what the vocabulary cannot write
    silent = set(tokenizer.special.values()) - {unknown}
    assert silent
    for name in tokenizer.special:
        for string in (name, f" {name}", f"a{name}b", f"{name}{name}", f"x {name}\n"):
            ids = tokenizer.encode(string)
            assert not silent & set(ids), (name, string)
            if kind in LOSSLESS:
                assert unknown not in ids
                assert tokenizer.decode(ids).strip() == string.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_no_bytes(every, kind):
    tokenizer = every[kind]
    ids = list(tokenizer.special.values())
    assert all(tokenizer.token_bytes(i) == b"" for i in ids)
    middle = tokenizer.encode("a b")
    assert tokenizer.decode([*ids, *middle, *ids]) == tokenizer.decode(middle)
    assert set(tokenizer.eos_ids) <= set(ids)
    tokens = tokenizer.tokens()
    assert len(tokens) == tokenizer.vocab_size
    assert all(tokens[index] == name.encode() for name, index in tokenizer.special.items())


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("string", makers.STRINGS)
def test_round_trip(every, kind, string):
    tokenizer = every[kind]
    ids = tokenizer.encode(string)
    # Of a vocabulary that puts a space before every text but those that begin with one, that space
    # comes back only in the tokens' bytes.
    if kind == "byte_fallback":
        string = string.removeprefix(" ")
    assert tokenizer.decode(ids, begins=True) == string
    assert tokenizer.encode_batch([string, "x"])[1] == tokenizer.encode("x")
    data = b"".join(tokenizer.token_bytes(i) for i in ids)
    if kind in BYTES_EXACT:
        assert data == string.encode()
    else:
        assert data.removeprefix(b" ") == string.encode()


@hypothesis.given(string=st.text(max_size=40))
def test_round_trip_of_anything(every, string):
    for kind in LOSSLESS:
        tokenizer = every[kind]
        wanted = string.removeprefix(" ") if kind == "byte_fallback" else string
        if kind == "byte_fallback" or kind == "bpe.model":
            wanted = wanted.replace("▁", " ")  # how these write a space
            if kind == "byte_fallback" and string.startswith("▁"):
                wanted = wanted.removeprefix(" ")
        assert tokenizer.decode(tokenizer.encode(string), begins=True) == wanted, kind
    for kind in BYTES_EXACT:
        tokenizer = every[kind]
        data = b"".join(map(tokenizer.token_bytes, tokenizer.encode(string)))
        assert data == string.encode(), kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same(every, kind, tmp_path):
    tokenizer = every[kind]
    tokenizer.save(tmp_path)
    assert text.is_in(tmp_path)
    again = text.load(tmp_path)
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert again.content_hash == tokenizer.content_hash
    assert (again.eos_ids, again.pad_id) == (tokenizer.eos_ids, tokenizer.pad_id)
    assert again.tokens() == tokenizer.tokens()
    strings = makers.STRINGS
    assert again.encode_batch(strings, bos=True) == tokenizer.encode_batch(strings, bos=True)
    if tokenizer.settings.template:
        messages = [{"role": "user", "content": "hello"}]
        assert again.encode_chat(messages) == tokenizer.encode_chat(messages)


def test_kinds_differ(every):
    assert len({tokenizer.content_hash for tokenizer in every.values()}) == len(every)


def test_what_stands_around_a_prompt(every):
    for kind, prefix, suffix in (
        ("own", [], []),
        ("byte_level", [], []),
        ("byte_fallback", [1], []),
        ("unigram", [], [1]),
        ("bpe.model", [1], []),
        ("unigram.model", [], [1]),
        ("gguf", [], []),
    ):
        tokenizer = every[kind]
        whole = [*prefix, *tokenizer.encode("Ann"), *suffix]
        assert tokenizer.encode("Ann", bos=True) == whole, kind
        assert tokenizer.encode_prompts(["Ann"]) == [whole], kind


def test_trimming_keeps_what_text_needs(every):
    tokenizer = every["unigram"]
    with pytest.raises(UserError, match="give the tokenizer that belongs to the model"):
        tokenizer.trimmed(tokenizer.vocab_size - 1)
    tokenizer = every["gguf"]
    assert tokenizer.trimmed(tokenizer.vocab_size) is tokenizer
    with pytest.raises(UserError, match="'<think>'"):
        tokenizer.trimmed(tokenizer.special["<|im_end|>"] + 1)


def test_trimmed_special_tokens(every, tmp_path):
    whole = every["unigram.model"]  # its sentinels stand last
    smaller = whole.trimmed(whole.vocab_size - 3)
    assert smaller.vocab_size == whole.vocab_size - 3 == len(smaller.tokens())
    assert smaller != whole and smaller.encode("Ann") == whole.encode("Ann")
    smaller.save(tmp_path)
    assert text.load(tmp_path) == smaller and text.load(tmp_path).vocab_size == smaller.vocab_size
