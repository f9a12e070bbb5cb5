import json

import hypothesis
import pytest
import tokenizers
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from speccascade import text
from speccascade.errors import UserError
from speccascade.text import gguf_vocabulary
from speccascade.text.gguf_vocabulary import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    from_fields,
)
from tests.text import makers


@pytest.fixture
def fields(tmp_path):
    return makers.byte_level_fields(tmp_path / "fields")


@pytest.fixture
def llama_fields():
    return sentence_piece_fields(makers.sentence_piece("bpe"))


def sentence_piece_fields(proto, **more):
    """Returns the GGUF metadata of a SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    fields = {
        "model": "llama",
        "tokens": [piece.piece for piece in model.pieces],
        "token_type": [piece.type for piece in model.pieces],
        "scores": [piece.score for piece in model.pieces],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_space_prefix": model.normalizer_spec.add_dummy_prefix,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in {**fields, **more}.items()}


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


# Names by the one whose expressions they have in llama.cpp's source.
@pytest.mark.parametrize(
    ("pre", "known"),
    [
        *(("falcon3", "llama-bpe"), ("pixtral", "llama-bpe"), ("lfm2", "llama-bpe")),
        *(("deepseek-r1-qwen", "qwen2"), ("megrez", "qwen2"), ("stablelm2", "qwen2")),
        *(("glm4", "llama-bpe"), ("dbrx", "llama-bpe"), ("smaug-bpe", "llama-bpe")),
        *(("starcoder", "smollm"), ("command-r", "smollm"), ("refact", "smollm")),
        *(("phi-2", "gpt-2"), ("olmo", "gpt-2"), ("mpt", "gpt-2"), ("exaone4", "gpt-2")),
    ],
)
def test_pre_tokenizers_of_another_name(fields, pre, known):
    made, other = (from_fields(changed(fields, pre=name), "a test") for name in (pre, known))
    assert made.encode_batch(makers.STRINGS) == other.encode_batch(makers.STRINGS)
    # As Llama 3's, a few look up whole words first and begin a text.
    whole = json.loads(made._inner.to_str())["model"]["ignore_merges"]
    begins = from_fields(changed(fields, pre=pre, bos_token_id=330), "a test").settings.prefix
    assert whole is bool(begins) is (pre in ("falcon3", "pixtral", "lfm2"))


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
    with pytest.raises(
        UserError, match="a test has tokenizer.ggml.model='rwkv': .* only gpt2, llama"
    ):
        from_fields(changed(fields, model="rwkv"), "a test")
    with pytest.raises(UserError, match="a test lacks tokenizer.ggml.model"):
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
    tokens = fields["tokenizer.ggml.tokens"]
    plain = [token.replace("<|", "<") for token in tokens]
    with pytest.raises(UserError, match="no end-of-sequence token"):
        from_fields(changed(fields, tokens=plain, eos_token_id=None), "a test")
    for none in (None, -1, 2**32 - 1):
        tokenizer = from_fields(changed(fields, eos_token_id=none, padding_token_id=none), "a test")
        assert (tokenizer.eos_ids, tokenizer.pad_id) == ((330, 332), 330)
    beyond = changed(fields, padding_token_id=334, unknown_token_id=334)
    assert from_fields(beyond, "a test") == from_fields(fields, "a test")


# Those of llama.cpp (src/llama-vocab.cpp), and CodeLlama's with SentencePiece's symbol.
ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> </s> "
    "<|endoftext|> <|eom_id|> <EOT> _<EOT> ▁<EOT> [EOT] [EOS] <|end_of_text|> <eos> <turn|> "
    "<end_of_utterance> <|tool_response> <｜end▁of▁sentence｜>"
).split()


@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER_DEFINED, UNUSED])
@pytest.mark.parametrize("end", ENDS)
def test_what_ends_an_answer_ends_it_whatever_its_type(fields, llama_fields, end, kind):
    for made in (fields, llama_fields):
        tokens, other = made["tokenizer.ggml.tokens"], made["tokenizer.ggml.eos_token_id"]
        # The only one that is written like an end.
        tokens = [f"<{i}>" if t in ENDS else t for i, t in enumerate(tokens)] + [end]
        more = {"tokens": tokens, "token_type": [*made["tokenizer.ggml.token_type"], kind]}
        more["scores"] = [*made.get("tokenizer.ggml.scores", []), 0.0]
        tokenizer, index = from_fields(changed(made, **more), "a test"), len(tokens) - 1
        assert tokenizer.eos_ids == (other, index)
        ids = tokenizer.encode("a pen")
        assert tokenizer.decode([*ids, index]) == tokenizer.decode(ids)
        spelled = tokenizer.encode(f"a {end}")
        assert index not in spelled
        shown = b"".join(map(tokenizer.token_bytes, spelled)).decode()
        assert shown.replace("▁", " ").lstrip() == f"a {end}".replace("▁", " ")


def test_what_only_ends_a_part_of_an_answer_or_is_text(fields):
    def ends(*names):
        tokens = [t.replace("<|", "<") for t in fields["tokenizer.ggml.tokens"]]
        types = [*fields["tokenizer.ggml.token_type"], *([USER_DEFINED] * len(names))]
        made = changed(fields, tokens=[*tokens, *names], token_type=types)
        return [names[i - len(tokens)] for i in from_fields(made, "a test").eos_ids[1:]]

    assert ends("<|end|>", "<|return|>") == ["<|end|>", "<|return|>"]
    assert ends("<|end|>", "<|return|>", "<|call|>") == ["<|return|>", "<|call|>"]
    assert ends("<|end|>", "<|flush|>", "<|calls|>") == ["<|flush|>", "<|calls|>"]
    assert ends("<eos>", "</s>") == ["<eos>"]  # Gemma's HTML


def test_a_missing_pre_tokenizer_is_said(fields, capsys):
    del fields["tokenizer.ggml.pre"]
    tokenizer = from_fields(fields, "a test")
    assert "a test has no tokenizer.ggml.pre; texts are cut as by 'default'" in (
        capsys.readouterr().err
    )
    assert tokenizer == from_fields(changed(fields, pre="default"), "a test")
    assert capsys.readouterr().err == ""


WRONG = {
    "model": [3, ["gpt2"], True],
    "pre": [3, ["gpt-2"]],
    "tokens": ["abc", 3, [1, 2], [None]],
    "token_type": [1, "normal", [99], ["a"]],
    "merges": ["a b", [1], 2],
    "scores": ["abc", [None], 3],
    "eos_token_id": ["</s>", [1], 1.5, 999_999, True],
    "eot_token_id": ["x", 999_999],
    "bos_token_id": ["x", 999_999, -5],
    "padding_token_id": ["x", [0]],
    "unknown_token_id": [[]],
    "add_bos_token": ["yes", 2, [True]],
    "add_eos_token": ["no"],
    "add_space_prefix": ["x", 3],
}


@pytest.mark.parametrize("name", WRONG)
def test_values_of_the_wrong_type_are_named(fields, llama_fields, name):
    fields = llama_fields if name in ("scores", "add_space_prefix") else fields
    for value in WRONG[name]:
        with pytest.raises(UserError, match=rf"a test has tokenizer\.ggml\.{name}=") as error:
            from_fields(changed(fields, **{name: value}), "a test")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"a test has tokenizer\.chat_template=7"):
        from_fields({**fields, "tokenizer.chat_template": 7}, "a test")


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
    values = {k.removeprefix("tokenizer.ggml."): v for k, v in sentence_piece_fields(proto).items()}
    path = makers.gguf(
        tmp_path / "a.gguf", values.pop("tokens"), values.pop("token_type"), **values
    )
    tokenizer = text.load(path)
    assert tokenizer.encode_batch(makers.STRINGS) == inner.encode(makers.STRINGS)
    assert tokenizer.settings.prefix == (1,) and tokenizer.eos_ids == (2,)
    (tmp_path / "tokenizer.model").write_bytes(proto)
    assert tokenizer.tokens() == text.load(tmp_path / "tokenizer.model").tokens()
    values = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a", "b"]}
    with pytest.raises(UserError, match="2 tokens and 0 scores"):
        from_fields(values, "a test")


OWN = ["▁▁", "▁▁▁", "▁▁▁▁", "<b>", "\n\n", "\t", "▁▁x", "日本▁"]


@pytest.fixture(scope="module", params=[True, False])
def user_defined(request):
    """A SentencePiece model with pieces of its user, and its vocabulary in both spellings."""
    import sentencepiece

    proto = makers.sentence_piece("bpe", user_defined_symbols=OWN, add_dummy_prefix=request.param)
    fields = sentence_piece_fields(proto)
    tokens, types = (fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    assert [t for t, k in zip(tokens, types, strict=True) if k == USER_DEFINED] == OWN
    # As llama.cpp's converter writes them.
    plain = [
        token.replace("▁", " ") if kind == USER_DEFINED else token
        for token, kind in zip(tokens, types, strict=True)
    ]
    made = [from_fields(changed(fields, tokens=t), "a test") for t in (tokens, plain)]
    return sentencepiece.SentencePieceProcessor(model_proto=proto), made, request.param


@hypothesis.given(string=st.text("    \n\tax<b>日本▁", max_size=20))
def test_user_defined_pieces_are_found_as_sentencepiece_finds_them(user_defined, string):
    inner, (one, other), prefixed = user_defined
    assert one == other
    ids = one.encode(string)
    assert ids == inner.encode(string)
    shown = b"".join(map(one.token_bytes, ids)).decode()
    assert shown == (" " if prefixed and string else "") + string.replace("▁", " ")


def test_four_spaces_are_one_token(user_defined):
    inner, (tokenizer, _), _ = user_defined
    ids = tokenizer.encode("if a:\n\n    b")
    assert inner.piece_to_id("▁▁▁▁") in ids and inner.piece_to_id("▁▁") not in ids


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
