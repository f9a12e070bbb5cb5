import json

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from speccascade import text
from speccascade.errors import UserError
from speccascade.text import gguf_vocabulary
from speccascade.text.gguf_vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, from_fields
from tests.text import makers


@pytest.fixture
def fields(tmp_path):
    return makers.byte_level_fields(tmp_path / "fields")


def changed(fields, **changes):
    return {**fields, **{f"tokenizer.ggml.{k}": v for k, v in changes.items()}}


def test_byte_level_equals_the_tokenizer_json_that_it_was_made_from(fields, tmp_path):
    original = text.load(tmp_path / "fields")
    tokenizer = from_fields(fields, "a test")
    assert tokenizer.tokens() == original.tokens()
    assert tokenizer.special == original.special
    assert tokenizer.encode_batch(makers.STRINGS) == original.encode_batch(makers.STRINGS)
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.encode_chat(messages) == original.encode_chat(messages)


# Where each cuts is in llama.cpp's source (src/llama-vocab.cpp) and in the models' tokenizer.json.
@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["It", "'s", " 1234", " pens", ",", "  ", " I", "'", "LL", "\n\n"]),
        ("smollm", ["It", "'s", " ", *"1234", " pens", ",", "  ", " I", "'", "LL", "\n\n"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", " pens", ",", "  ", " I", "'LL", "\n\n"]),
        ("qwen2", ["It", "'s", " ", *"1234", " pens", ",", "  ", " I", "'LL", "\n\n"]),
        ("default", ["It", "'", "s", " ", "123", "4", " pens", ",", "  ", " I", "'", "LL", "\n\n"]),
    ],
)
def test_pre_tokenizers(fields, pre, pieces):
    tokenizer = from_fields(changed(fields, pre=pre), "a test")
    cut = tokenizer._inner.pre_tokenizer.pre_tokenize_str("It's 1234 pens,   I'LL\n\n")
    assert [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in cut] == pieces


@hypothesis.given(string=st.text(max_size=30) | st.text("ab1½² '\n\t.,s", max_size=30))
def test_pre_tokenizers_are_those_of_the_models_own_files(string):
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    wanted = {
        "gpt-2": own,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), own]),
    }
    for pre, theirs in wanted.items():
        ours = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(regex), "isolated")
                for regex in gguf_vocabulary.SPLITS[pre]
            ]
            + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        pieces = [piece for piece, _ in ours.pre_tokenize_str(string)]
        assert pieces == [piece for piece, _ in theirs.pre_tokenize_str(string)], pre


def test_unknown_kinds_are_named(fields):
    with pytest.raises(UserError, match="pre-tokenizer 'tekken', which is not implemented; known"):
        from_fields(changed(fields, pre="tekken"), "a test")
    with pytest.raises(UserError, match="kind 'rwkv'; only gpt2 and llama are implemented"):
        from_fields(changed(fields, model="rwkv"), "a test")
    with pytest.raises(UserError, match="kind None"):
        from_fields({}, "a test")
    with pytest.raises(UserError, match="334 tokens and 3 types"):
        from_fields(changed(fields, token_type=[1, 1, 1]), "a test")


def test_end_of_sequence_and_bos(fields):
    tokenizer = from_fields(fields, "a test")
    assert tokenizer.eos_ids == (332, 330)  # <|endoftext|> ends an answer too
    assert tokenizer.settings.prefix == () and tokenizer.pad_id == 332
    more = changed(fields, eot_token_id=331, bos_token_id=330, padding_token_id=3)
    tokenizer = from_fields(more, "a test")
    assert (tokenizer.eos_ids, tokenizer.pad_id) == ((332, 331, 330), 3)
    assert tokenizer.settings.prefix == ()
    assert from_fields(changed(more, pre="llama-bpe"), "a test").settings.prefix == (330,)
    assert from_fields(changed(more, add_bos_token=True), "a test").settings.prefix == (330,)
    plain = changed(fields, token_type=[NORMAL] * 334, eos_token_id=None)
    with pytest.raises(UserError, match="no end-of-sequence token"):
        from_fields(plain, "a test")


def test_rows_that_fill_up_the_embedding_are_no_tokens(fields):
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    padded = changed(
        fields,
        tokens=[*tokens, "[PAD334]", "[PAD335]"],
        token_type=[*types, UNUSED, UNUSED],
    )
    assert from_fields(padded, "a test") == from_fields(fields, "a test")


def test_a_file(fields, tmp_path):
    values = {k.removeprefix("tokenizer.ggml."): v for k, v in fields.items()}
    template = values.pop("tokenizer.chat_template")
    tokens, types = values.pop("tokens"), values.pop("token_type")
    path = makers.gguf(
        tmp_path / "a.gguf", tokens, types, chat_template=template, add_bos_token=False, **values
    )
    tokenizer = text.load(path)
    assert tokenizer.encode_batch(makers.STRINGS) == from_fields(fields, "").encode_batch(
        makers.STRINGS
    )
    tokenizer.save(tmp_path)
    assert text.load(tmp_path) == tokenizer
    data = path.read_bytes()
    for share in (0.0, 0.01, 0.5):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match="a.gguf is no GGUF file or is cut") as error:
            text.load(path)
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match="no tokenizer at"):
        text.load(path)


def test_sentencepiece_like_equals_the_model_that_it_was_made_from(tmp_path):
    import sentencepiece

    proto = makers.sentence_piece("bpe")
    inner = sentencepiece.SentencePieceProcessor(model_proto=proto)
    size = inner.get_piece_size()
    kinds = ((CONTROL, inner.is_control), (UNKNOWN, inner.is_unknown), (BYTE, inner.is_byte))
    types = [next((kind for kind, holds in kinds if holds(i)), NORMAL) for i in range(size)]
    path = makers.gguf(
        tmp_path / "a.gguf",
        [inner.id_to_piece(i) for i in range(size)],
        types,
        model="llama",
        scores=[inner.get_score(i) for i in range(size)],
        bos_token_id=1,
        eos_token_id=2,
    )
    tokenizer = text.load(path)
    assert tokenizer.encode_batch(makers.STRINGS) == inner.encode(makers.STRINGS)
    assert tokenizer.settings.prefix == (1,) and tokenizer.eos_ids == (2,)
    (tmp_path / "tokenizer.model").write_bytes(proto)
    assert tokenizer.tokens() == text.load(tmp_path / "tokenizer.model").tokens()
    values = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"]}
    with pytest.raises(UserError, match="2 tokens and 0 scores"):
        from_fields(values, "a test")


def test_without_a_space_before_texts():
    tokens = ["<unk>", "</s>", "a", "▁a", "b", "ab", "▁"]
    fields = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 1, 1, 1, 1, 1],
        "tokenizer.ggml.scores": [0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0],
        "tokenizer.ggml.eos_token_id": 1,
    }
    assert from_fields(fields, "a test").encode("ab a") == [3, 4, 3]
    without = json.loads(json.dumps({**fields, "tokenizer.ggml.add_space_prefix": False}))
    tokenizer = from_fields(without, "a test")
    assert tokenizer.encode("ab a") == [5, 3] and tokenizer.decode([3, 4]) == " ab"
