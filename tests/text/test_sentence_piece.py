import json

import pytest

from speccascade import text
from speccascade.errors import UserError
from tests.text import makers


@pytest.fixture(scope="module")
def protos():
    return {kind: makers.sentence_piece(kind) for kind in ("bpe", "unigram")}


def test_a_model_alone(protos, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(protos["bpe"])
    tokenizer = text.load(tmp_path / "tokenizer.model")
    assert tokenizer.eos_ids == (2,) and tokenizer.settings.prefix == (1,)
    assert tokenizer.special == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert tokenizer.token_bytes(tokenizer.tokens().index(b"\xff")) == b"\xff"
    ids = tokenizer.encode("日")
    assert b"".join(map(tokenizer.token_bytes, ids)) == " 日".encode()  # by falling back on bytes
    assert tokenizer.decode(ids, begins=True) == "日" and tokenizer.decode(ids) == " 日"


def test_t5_sentinels_count_from_the_end(protos, tmp_path):
    (tmp_path / "spiece.model").write_bytes(protos["unigram"])
    size = text.load(tmp_path).vocab_size
    (tmp_path / "config.json").write_text('{"model_type": "t5", "eos_token_id": 1}')
    tokenizer = text.load(tmp_path)
    assert tokenizer.vocab_size == size + 100
    assert tokenizer.special["<extra_id_0>"] == size + 99
    assert tokenizer.special["<extra_id_99>"] == size
    assert tokenizer.settings.suffix == (1,) and tokenizer.settings.prefix == ()
    assert (tokenizer.eos_ids, tokenizer.pad_id) == ((1,), 0)


def test_added_tokens(protos, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(protos["bpe"])
    size = text.load(tmp_path).vocab_size
    config = {
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": True},
            str(size + 1): {"content": "<|im_end|>", "special": True},
        },
        "eos_token": "<|im_end|>",
        "add_bos_token": False,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = text.load(tmp_path)
    assert tokenizer.vocab_size == size + 2 and tokenizer.eos_ids == (size + 1,)
    assert tokenizer.tokens()[size:] == [b"", b"<|im_end|>"]
    assert tokenizer.settings.prefix == ()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_damaged_files(protos, tmp_path, share):
    data = protos["bpe"]
    (tmp_path / "tokenizer.model").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="tokenizer.model") as caught:
        text.load(tmp_path)
    assert "\n" not in str(caught.value)
