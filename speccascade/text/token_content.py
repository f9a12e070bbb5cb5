"""What the decoder of a `tokenizer.json` makes of one token.

The library decodes all tokens of a text at once. Here every token has bytes of its own, whatever
stands beside it, so only such decoders are read as work on each token alone, and that may take
spaces from the beginning of a text: where an answer goes on from its prompt, nothing is taken.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Regex, decoders

from speccascade.errors import UserError
from speccascade.text import byte_level

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how most vocabularies write a space

_Step = Callable[[str | bytes], str | bytes]


def of_decoder(
    decoder: Mapping[str, Any] | None, falls_back: bool, source: str
) -> Callable[[str], bytes]:
    """Returns the function from a token as the vocabulary writes it to its bytes.

    Args:
      decoder: of the file.
      falls_back: whether tokens such as <0x0A> are bytes even if the decoder does not say so.
      source: what messages call the file.

    Raises:
      UserError: a token's bytes would depend on its neighbours, or nothing writes a space.
    """
    parts = _parts(decoder, source)
    kinds = [part["type"] for part in parts]
    if not {"ByteLevel", "Metaspace", "Replace"} & set(kinds):
        raise _refused(source, ", ".join(kinds) or "none")
    steps = [_byte] if falls_back and "ByteFallback" not in kinds else []
    whole = False  # whether what follows sees the text as one token
    for part in parts:
        step = _on_a_text(part, source) if whole else _on_a_token(part, source)
        whole |= part["type"] in ("Fuse", "ByteLevel")
        steps += [] if step is None else [step]

    def content(token: str) -> bytes:
        found: str | bytes = token
        for step in steps:
            found = step(found)
        return found if isinstance(found, bytes) else found.encode()

    return content


def _parts(decoder: Mapping[str, Any] | None, source: str) -> list[Mapping[str, Any]]:
    """Returns the decoders of a sequence, however nested."""
    if decoder is None:
        return []
    try:
        if decoder["type"] != "Sequence":
            if not isinstance(decoder["type"], str):
                raise TypeError
            return [decoder]
        return [part for inner in decoder["decoders"] for part in _parts(inner, source)]
    except (KeyError, TypeError):
        raise UserError(f"the decoder of {source} is damaged; copy the checkpoint again") from None


def _refused(source: str, what: str) -> UserError:
    return UserError(
        f"{source} has a decoder that is not implemented ({what}); give a tokenizer whose tokens "
        "have the same text wherever they stand"
    )


def _on_a_token(part: Mapping[str, Any], source: str) -> _Step | None:
    match part:
        case {"type": "Fuse"}:
            return None
        case {"type": "ByteLevel"}:
            return _on_text(byte_level.to_bytes)
        case {"type": "ByteFallback"}:
            return _byte
        case {"type": "Metaspace"}:
            return _replace(part.get("replacement", SPACE), " ")
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
            return _replace(old, new)
        case {"type": "Replace", "pattern": {"Regex": str(old)}, "content": str(new)}:
            return _by_library(decoders.Replace(Regex(old), new))
        case {"type": "Strip", "content": str(what), "start": int(start), "stop": int(stop)}:
            return _by_library(decoders.Strip(what, start, stop))
    raise _refused(source, part["type"])


def _on_a_text(part: Mapping[str, Any], source: str) -> _Step | None:
    match part:
        case {"type": "Fuse"}:
            return None
        case {"type": "Strip", "content": " ", "stop": 0}:
            return None  # the beginning of a text, see `Tokenizer.decode`
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
            if len(old) == 1:  # no token holds a part of it
                return _replace(old, new)
    raise _refused(source, f"{part['type']} of the whole text")


def _on_text(step: Callable[[str], str | bytes]) -> _Step:
    return lambda token: token if isinstance(token, bytes) else step(token)


def _replace(old: str, new: str) -> _Step:
    data = old.encode(), new.encode()

    def replace(token: str | bytes) -> str | bytes:
        return token.replace(*data) if isinstance(token, bytes) else token.replace(old, new)

    return replace


def _by_library(decoder: decoders.Decoder) -> _Step:
    return _on_text(lambda token: decoder.decode([token]))


@_on_text
def _byte(token: str) -> str | bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token
