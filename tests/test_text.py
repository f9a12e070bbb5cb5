import pytest

from speccascade.errors import UserError
from speccascade.text import Tokenizer

TEXTS = ["Ann has 12 pens and buys 7 pens. 12 + 7 = 19 pens.\n#### 19"] * 4 + [
    "costs £35, café"
] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 300)


@pytest.mark.parametrize(
    "text",
    [*TEXTS, "", " ", "\n\n", "7", "never seen: ü 日本 \x00\t", "12345 67", "<|eos|> and <|pad|>"],
)
def test_roundtrip(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == text.encode()
    assert tokenizer.encode_batch([text]) == [ids]


def test_each_digit_is_its_own_token_wherever_it_stands(tokenizer):
    digit = {d: tokenizer.encode(d) for d in "0123456789"}
    assert all(len(ids) == 1 for ids in digit.values())
    for text in ("12", " 12", "£12", "a12b", "costs 12.", "\n12", "1,212", "(12)"):
        ids = tokenizer.encode(text)
        spelled = [d for d in text if d.isdigit()]
        assert [i for i in ids if [i] in digit.values()] == [digit[d][0] for d in spelled]
    for index in range(tokenizer.vocab_size):
        token = tokenizer.token_bytes(index)
        assert len(token) == 1 or not any(b in b"0123456789" for b in token)


def test_special_token_text_is_text(tokenizer):
    ids = tokenizer.encode("a<|eos|><|pad|>")
    assert tokenizer.eos_id not in ids and tokenizer.pad_id not in ids
    assert tokenizer.decode([tokenizer.eos_id, *tokenizer.encode("a"), tokenizer.pad_id]) == "a"


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again == tokenizer and again.content_hash == tokenizer.content_hash
    assert again.encode("<|eos|> 12") == tokenizer.encode("<|eos|> 12")
    assert again != Tokenizer.train(TEXTS, 290)


def test_bad_files(tokenizer, tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "none.json")
    tokenizer.save(tmp_path / "cut.json")
    (tmp_path / "cut.json").write_text((tmp_path / "cut.json").read_text()[:100])
    with pytest.raises(UserError, match="truncated"):
        Tokenizer.load(tmp_path / "cut.json")
    with pytest.raises(UserError, match="256 bytes"):
        Tokenizer.train(TEXTS, 100)
