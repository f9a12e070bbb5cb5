"""Whatever stands in a tokenizer's files: it loads, or one line says what is wrong."""

import json

import makers
import pytest

from speccascade import text
from speccascade.errors import UserError

VALUES = [None, "x", "16", [], [1], [["x"]], {}, {"x": 1}, True, -1, 0, 0.5, 10**12, float("nan")]
BESIDE = {
    "special_tokens_map.json": {"eos_token": {"content": "</s>"}, "unk_token": "<unk>"},
    "generation_config.json": {"eos_token_id": [2, 3], "pad_token_id": 0},
    "config.json": {"model_type": "llama", "eos_token_id": 2, "text_config": {"eos_token_id": 2}},
    "tokenizer_config.json": {
        "add_bos_token": True,
        "additional_special_tokens": ["</s>", {"content": "<unk>"}],
        "added_tokens_decoder": {"2": {"content": "</s>", "special": True}},
        "bos_token": {"content": "<s>", "lstrip": False},
        "chat_template": [{"name": "default", "template": makers.CHATML}],
        "eos_token": "</s>",
        "extra_ids": 100,
        "tokenizer_class": "LlamaTokenizer",
    },
    "added_tokens.json": {"<more>": 5000},
    "tokenizer_settings.json": {
        "eos_ids": [2],
        "names": {"eos_token": "</s>"},
        "pad_id": 0,
        "prefix": [1],
        "suffix": [],
        "template": None,
        "vocab_size": None,
    },
}


def pieces(folder):
    """Writes a SentencePiece model."""
    (folder / "tokenizer.model").write_bytes(makers.sentence_piece())
    return folder


MAKERS = [makers.byte_level, makers.byte_fallback, makers.unigram, pieces]


def places(value, path=()):
    """Returns the path of every value, of the first two of many alone."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for n, (name, inner) in enumerate(items):
        if n >= 2 and len(value) > 20:
            return
        yield (*path, name)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, name))


def put(values, path, value):
    """Returns a copy with another value at a path."""
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[path[0]] = put(values[path[0]], path[1:], value) if path[1:] else value
    return copy


def loads(folder) -> bool:
    try:
        tokenizer = text.load(folder)
        tokenizer.encode_prompts(["Ann has 12 pens."])
    except UserError as error:
        assert "\n" not in str(error)
        str(error).encode()
        return False
    return True


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["tokenizer.json", *BESIDE])
def test_every_field_may_hold_anything(make, name, tmp_path):
    folder = make(tmp_path)
    path = folder / name
    if name == "tokenizer.json" and not path.exists():
        pytest.skip("it has none")
    values = BESIDE[name] if name in BESIDE else json.loads(path.read_text())
    loaded = 0
    for place in places(values):
        for value in VALUES:
            path.unlink(missing_ok=True)  # disks are slow to write over a file, for safety's sake
            path.write_text(json.dumps(put(values, place, value)))
            loaded += loads(folder)
    assert loaded


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_byte_order_mark_changes_nothing(make, tmp_path):
    folder = make(tmp_path)
    plain = text.load(folder)
    for path in folder.glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert text.load(folder) == plain


@pytest.mark.parametrize("name", BESIDE)
def test_files_that_are_no_objects_are_named(name, tmp_path):
    folder = pieces(tmp_path)
    for data in (b"", b"{", b"[]", b"3", b'{"x": "\xff"}', b"[" * 100_000):
        (folder / name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            text.load(folder)
