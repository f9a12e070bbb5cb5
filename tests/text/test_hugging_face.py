import json

import pytest

from speccascade import text
from speccascade.errors import UserError
from tests.text import makers


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_end_of_sequence_ids_come_from_everywhere(tmp_path):
    directory = makers.byte_level(tmp_path)
    assert text.load(directory).eos_ids == (332,)
    (directory / "config.json").write_text('{"eos_token_id": 5}')
    assert text.load(directory).eos_ids == (332, 5)
    (directory / "generation_config.json").write_text('{"eos_token_id": [330, 332, 7]}')
    tokenizer = text.load(directory)
    assert tokenizer.eos_ids == (332, 330, 7)  # the tokenizer's own first; config.json gives way
    assert not {332, 330, 7} & set(tokenizer.encode("<|im_end|>" + "".join(map(chr, range(128)))))
    (directory / "generation_config.json").write_text('{"eos_token_id": 900}')
    with pytest.raises(UserError, match="eos_ids 900 of the checkpoint is outside its 334 tokens"):
        text.load(directory)


def test_a_tokenizer_without_end_is_refused(tmp_path):
    directory = makers.byte_level(tmp_path, eos_token=None)
    with pytest.raises(UserError, match="no end-of-sequence token; name one as eos_token in"):
        text.load(directory)
    (directory / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "<|endoftext|>", "lstrip": false}}'
    )
    edit(directory / "tokenizer_config.json", lambda config: config.pop("eos_token"))
    assert text.load(directory).eos_ids == (330,)


def test_padding(tmp_path):
    assert text.load(makers.byte_level(tmp_path)).pad_id == 330
    edit(tmp_path / "tokenizer_config.json", lambda config: config.pop("pad_token"))
    assert text.load(tmp_path).pad_id == 332  # the end of sequence, for want of another


def test_what_the_config_says_of_bos_counts(tmp_path):
    directory = makers.byte_fallback(tmp_path, add_bos_token=False)
    assert text.load(directory).settings.prefix == ()
    makers.byte_fallback(tmp_path, add_bos_token=True, add_eos_token=True)
    assert text.load(directory).settings.prefix == (1,)
    assert text.load(directory).settings.suffix == (2,)


def test_tokens_that_only_the_config_calls_special(tmp_path):
    directory = makers.byte_level(tmp_path)
    assert text.load(directory).encode("<think>") == [333]
    makers.byte_level(tmp_path, additional_special_tokens=["<think>"])
    tokenizer = text.load(directory)
    assert 333 not in tokenizer.encode("<think>") and tokenizer.decode([333]) == ""


def test_truncation_and_padding_of_the_file_do_not_count(tmp_path):
    directory = makers.byte_level(tmp_path)
    long = "pens " * 50
    wanted = text.load(directory).encode(long)
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    edit(directory / "tokenizer.json", lambda data: data.update(truncation=truncation))
    assert text.load(directory).encode(long) == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["model"].update(type="WordPiece"), "WordPiece|is not a tokenizer file"),
        (lambda d: d["model"].update(dropout=0.1), "dropout=0.1, which is not implemented"),
        (lambda d: d.update(decoder=None), r"decoder that is not implemented \(none\)"),
        (lambda d: d.update(decoder={"type": "Fuse"}), r"not implemented \(Fuse\)"),
        (lambda d: d.pop("model"), "is not a tokenizer file"),
        (lambda d: d["added_tokens"][0].update(id=7), "two ids|not a tokenizer file"),
    ],
)
def test_what_is_not_implemented_is_named(tmp_path, change, message):
    directory = makers.byte_level(tmp_path)
    edit(directory / "tokenizer.json", change)
    with pytest.raises(UserError, match=message) as caught:
        text.load(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged_files(tmp_path, name, share):
    path = makers.byte_level(tmp_path) / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=name) as caught:
        text.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_settings(tmp_path):
    tokenizer = text.load(makers.byte_level(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    tokenizer.save(tmp_path / "b")
    for damaged in ("{", "[]", '{"eos_ids": [1]}', '{"names": {}, "eos_ids": 3}'):
        (tmp_path / "b/tokenizer_settings.json").write_text(damaged)
        with pytest.raises(
            UserError, match="tokenizer_settings.json (is no JSON|holds no|lacks|has)"
        ):
            text.load(tmp_path / "b")


def test_byte_tokens_that_are_listed_as_added_stay_bytes(tmp_path):
    path = makers.byte_fallback(tmp_path) / "tokenizer.json"
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    ids = json.loads(path.read_text())["model"]["vocab"]
    names = [f"<0x{byte:02X}>" for byte in range(256)]

    def add(data):
        data["added_tokens"] += [{"id": ids[name], "content": name, **flags} for name in names]

    edit(path, add)
    tokenizer = text.load(tmp_path)
    assert [tokenizer.token_bytes(ids[name]) for name in names] == [bytes([b]) for b in range(256)]
    assert tokenizer.decode(tokenizer.encode("日🙂"), begins=True) == "日🙂"
