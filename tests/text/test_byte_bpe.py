import pathlib

import pytest

import speccascade
from speccascade import text
from speccascade.errors import UserError

TEXTS = ["Ann has 12 pens and buys 7 pens. 12 + 7 = 19 pens.\n#### 19"] * 4 + [
    "costs £35, café"
] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return text.train(TEXTS, 300)


@pytest.mark.parametrize(
    "string",
    [*TEXTS, "", " ", "\n\n", "7", "never seen: ü 日本 \x00\t", "12345 67", "<|eos|> and <|pad|>"],
)
def test_roundtrip(tokenizer, string):
    ids = tokenizer.encode(string)
    assert tokenizer.decode(ids) == string
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == string.encode()
    assert tokenizer.encode_batch([string]) == [ids]


def test_each_digit_is_its_own_token_wherever_it_stands(tokenizer):
    digit = {d: tokenizer.encode(d) for d in "0123456789"}
    assert all(len(ids) == 1 for ids in digit.values())
    for string in ("12", " 12", "£12", "a12b", "costs 12.", "\n12", "1,212", "(12)"):
        ids = tokenizer.encode(string)
        spelled = [d for d in string if d.isdigit()]
        assert [i for i in ids if [i] in digit.values()] == [digit[d][0] for d in spelled]
    for index in range(tokenizer.vocab_size):
        token = tokenizer.token_bytes(index)
        assert len(token) == 1 or not any(b in b"0123456789" for b in token)


def test_special_token_text_is_text(tokenizer):
    ids = tokenizer.encode("a<|eos|><|pad|>")
    assert tokenizer.eos_ids[0] not in ids and tokenizer.pad_id not in ids
    assert tokenizer.decode([tokenizer.eos_ids[0], *tokenizer.encode("a"), tokenizer.pad_id]) == "a"


def test_save_and_load(tokenizer, tmp_path):
    assert not text.is_in(tmp_path)
    tokenizer.save(tmp_path)
    assert text.is_in(tmp_path)
    again = text.load(tmp_path / "tokenizer.json")
    assert again == tokenizer and again.content_hash == tokenizer.content_hash
    assert again.encode("<|eos|> 12") == tokenizer.encode("<|eos|> 12")
    assert again != text.train(TEXTS, 290)


def test_bad_files(tokenizer, tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        text.load(tmp_path / "none.json")
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="truncated"):
        text.load(tmp_path)
    with pytest.raises(UserError, match="256 bytes"):
        text.train(TEXTS, 100)


def test_the_shipped_tokenizer_is_what_its_results_name():
    shipped = text.load(pathlib.Path(speccascade.__file__).parent / "shipped/gsm_symbolic")
    assert shipped.content_hash == "45be4720abf5d15b"  # as rows name it
    assert (shipped.vocab_size, shipped.eos_ids, shipped.pad_id) == (966, (1,), 0)


def test_there_is_no_chat_template(tokenizer):
    with pytest.raises(UserError, match="no chat template"):
        tokenizer.encode_prompts(["hello"], chat=True)
    assert tokenizer.encode_prompts(["hello"]) == tokenizer.encode_batch(["hello"])
