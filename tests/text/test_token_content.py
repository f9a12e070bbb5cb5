"""The bytes of one token, against the decoders of `tokenizers`."""

import json

import pytest
from tokenizers import Regex, decoders

from speccascade.errors import UserError
from speccascade.text import token_content

WORDS = ["x", "▁a", "a▁▁b", "▁", "Ġc", "日", "_d", "<0x41>", "<0xZZ>", "e  ", "▁"]
SPACES = decoders.Replace("▁", " ")
READ = [
    decoders.Metaspace(prepend_scheme="never"),
    decoders.Metaspace(replacement="_", prepend_scheme="always"),
    decoders.ByteLevel(),
    SPACES,
    decoders.Replace(Regex("▁+"), " "),
    decoders.Sequence([SPACES, decoders.ByteFallback(), decoders.Fuse()]),
    decoders.Sequence(
        [SPACES, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), SPACES]),
    decoders.Sequence([decoders.Sequence([SPACES]), decoders.Strip(" ", 0, 1), decoders.Fuse()]),
    decoders.Sequence([decoders.Replace("_", "Ġ"), decoders.ByteLevel()]),
]
REFUSED = [
    (None, "none"),
    (decoders.Fuse(), "Fuse"),
    (decoders.WordPiece(), "WordPiece"),
    (decoders.Sequence([SPACES, decoders.WordPiece()]), "WordPiece"),
    (decoders.Sequence([SPACES, decoders.BPEDecoder("</w>")]), "BPEDecoder"),
    (decoders.Sequence([SPACES, decoders.CTC()]), "CTC"),
    (decoders.Sequence([SPACES, decoders.Fuse(), decoders.Strip(" ", 0, 1)]), "Strip of the whole"),
    (decoders.Sequence([SPACES, decoders.Fuse(), decoders.Replace("ab", "c")]), "Replace of the"),
    (decoders.Sequence([decoders.Fuse(), decoders.ByteLevel()]), "ByteLevel of the whole"),
]


def described(decoder):
    return decoder and json.loads(decoder.__getstate__())


@pytest.mark.parametrize("decoder", READ, ids=repr)
def test_tokens_have_the_bytes_that_the_library_gives_them(decoder):
    content = token_content.of_decoder(described(decoder), False, "a test")
    whole = b""
    for n, word in enumerate(WORDS):
        whole += content(word)
        assert decoder.decode(WORDS[: n + 1]) == whole.decode(errors="replace")


@pytest.mark.parametrize(("decoder", "names"), REFUSED, ids=repr)
def test_what_depends_on_its_neighbours_is_refused(decoder, names):
    with pytest.raises(
        UserError, match=f"a test has a decoder .* not implemented .{names}"
    ) as found:
        token_content.of_decoder(described(decoder), False, "a test")
    assert "\n" not in str(found.value)


def test_damaged_decoders():
    for damaged in ({}, [], {"type": "Sequence"}, {"type": "Sequence", "decoders": [3]}):
        with pytest.raises(UserError, match="the decoder of a test is damaged"):
            token_content.of_decoder(damaged, False, "a test")
    with pytest.raises(UserError, match="not implemented .Replace"):
        token_content.of_decoder({"type": "Replace"}, False, "a test")


def test_bytes_to_fall_back_on_need_no_decoder():
    content = token_content.of_decoder(described(SPACES), True, "a test")
    assert [content(w) for w in ("<0xE6>", "<0xZZ>", "▁<0xE6>")] == [b"\xe6", b"<0xZZ>", b" <0xE6>"]
