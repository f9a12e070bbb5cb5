"""The vocabulary inside a GGUF file, its `tokenizer.ggml.*` metadata.

Byte-level BPE ("gpt2") becomes a `tokenizer.json`, a SentencePiece-like vocabulary ("llama") a
SentencePiece model, so that each kind of tokenizer has one implementation.
"""

import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from speccascade.errors import UserError
from speccascade.inputs import gguf_header
from speccascade.inputs.fields import Fields
from speccascade.text import end_tokens
from speccascade.text.hugging_face import HuggingFaceTokenizer
from speccascade.text.interface import Tokenizer
from speccascade.text.settings import Files, Settings

# Token types of the format; those of SentencePiece have the same numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _llama3(digits: str) -> str:
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# Regular expressions that cut a text, one after the other, by tokenizer.ggml.pre.
SPLITS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": (_GPT2,),
    "llama-bpe": (_llama3(r"\p{N}{1,3}"),),
    "qwen2": (_llama3(r"\p{N}"),),
    "smollm": (r"\p{N}", _GPT2),
}
# Names that llama.cpp (src/llama-vocab.cpp) takes for Llama 3's in all that matters here: words are
# looked up whole before their merges, and a text gets a beginning-of-sequence.
_LLAMA3 = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2".split()
# Names that it gives the expressions of another, and no more.
_SAME_SPLITS = {
    "gpt-2": "phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum exaone4 jina-es "
    "jina-de jina-v2-es jina-v2-de",
    "llama-bpe": "dbrx smaug-bpe glm4 chatglm-bpe",
    "qwen2": "deepseek-r1-qwen kormo megrez stablelm2 hunyuan grok-2",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b",
}
SPLITS |= dict.fromkeys(_LLAMA3, SPLITS["llama-bpe"])
for _known, _names in _SAME_SPLITS.items():
    SPLITS |= dict.fromkeys(_names.split(), SPLITS[_known])

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

_ROLES = ("eos", "eot", "eom", "bos", "padding", "unknown")
_NO_TOKEN = (-1, 2**32 - 1)  # what some writers take for a token that a vocabulary lacks


def load(path: str | os.PathLike) -> Tokenizer:
    """Reads the vocabulary of a GGUF file.

    Raises:
      UserError: it is damaged, has no vocabulary, or one that is not implemented.
    """
    try:
        metadata = gguf_header.read(path).metadata
    except FileNotFoundError:
        raise UserError(f"no tokenizer at {path}; give a GGUF file or a directory") from None
    return from_fields(metadata, str(path))


def from_fields(metadata: Mapping[str, Any], source: str) -> Tokenizer:
    """Returns the tokenizer that metadata describes.

    Args:
      metadata: the file's; what is not below `tokenizer.` is not looked at.
      source: what messages call it.

    Raises:
      UserError: it describes none, or one that is not implemented.
    """
    fields = Fields(metadata, source)
    made = {"gpt2": _byte_level, "llama": _sentence_piece}
    make = fields.choice("tokenizer.ggml.model", made)
    tokens = fields.texts("tokenizer.ggml.tokens")
    types = fields.integers("tokenizer.ggml.token_type", [NORMAL] * len(tokens), at_most=BYTE)
    if not tokens or len(types) != len(tokens):
        raise UserError(f"{source} has {len(tokens)} tokens and {len(types)} types; copy it again")
    # Rows that only fill up the embedding have made-up names.
    while tokens and types[-1] == UNUSED and tokens[-1] == f"[PAD{len(tokens) - 1}]":
        tokens.pop()
        types.pop()
    types = [kind or NORMAL for kind in types]  # 0 is no type at all
    roles = {role: _token_id(fields, role, len(tokens)) for role in _ROLES}
    ends = [roles[role] for role in ("eos", "eot", "eom") if roles[role] is not None]
    ends = list(dict.fromkeys([*ends, *end_tokens.find(tokens)]))
    for index in ends:
        if types[index] not in (UNKNOWN, BYTE):
            types[index] = CONTROL  # never text, and text never spells it
    return make(fields, tokens, types, roles, ends)


def _token_id(fields: Fields, role: str, size: int) -> int | None:
    name = f"tokenizer.ggml.{role}_token_id"
    index = fields.integer(name, None, at_least=_NO_TOKEN[0], at_most=_NO_TOKEN[1])
    if index is None or index in _NO_TOKEN:
        return None
    if index >= size and role in ("padding", "unknown"):  # which any token can stand for
        return None
    if index >= size:
        raise fields.wrong(name, f"the id of one of its {size} tokens")
    return index


def _settings(
    fields: Fields,
    tokens: Sequence[str],
    roles: Mapping[str, int | None],
    ends: Sequence[int],
    adds_bos: bool,
) -> Settings:
    bos = () if roles["bos"] is None else (roles["bos"],)
    prefix = bos if fields.boolean("tokenizer.ggml.add_bos_token", adds_bos) else ()
    suffix = tuple(ends[:1]) if fields.boolean("tokenizer.ggml.add_eos_token", False) else ()
    pad_id = roles["padding"]
    if pad_id is None:
        pad_id = ends[0] if ends else 0
    ids = {**roles, "pad": pad_id, "unk": roles["unknown"]}
    names = {
        f"{role}_token": tokens[ids[role]]
        for role in ("eos", "eot", "eom", "bos", "pad", "unk")
        if ids[role] is not None
    }
    template = fields.text("tokenizer.chat_template", None)
    return Settings(tuple(ends), pad_id, prefix, suffix, template, tuple(sorted(names.items())))


def _byte_level(
    fields: Fields,
    tokens: Sequence[str],
    types: Sequence[int],
    roles: Mapping[str, int | None],
    ends: Sequence[int],
) -> Tokenizer:
    source = fields.source
    pre = fields.text("tokenizer.ggml.pre", "")
    if not pre:
        pre = "default"
        print(
            f"warning: {source} has no tokenizer.ggml.pre; texts are cut as by {pre!r}, as in "
            "llama.cpp, which may not be how the model learnt them: convert it again, or give its "
            "tokenizer.json beside its weights",
            file=sys.stderr,
        )
    if pre not in SPLITS:
        raise UserError(
            f"{source} has the pre-tokenizer {pre!r}, which is not implemented; known: "
            f"{', '.join(SPLITS)}; give the model's tokenizer.json beside its weights"
        )
    splits = [
        {"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False}
        for r in SPLITS[pre]
    ]
    alphabet = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    added = [
        {
            "id": index,
            "content": token,
            "special": types[index] == CONTROL,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for index, token in enumerate(tokens)
        if types[index] in (CONTROL, USER_DEFINED)
    ]
    data = {
        "version": "1.0",
        "added_tokens": added,
        # As in Qwen's own tokenizer.json.
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*splits, {**alphabet, "use_regex": False}],
        },
        "post_processor": None,
        "decoder": {**alphabet, "use_regex": True},
        "model": {
            "type": "BPE",
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # Llama 3's merges do not build all of its tokens.
            "ignore_merges": pre in _LLAMA3,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": fields.texts("tokenizer.ggml.merges", []),
        },
    }
    settings = _settings(fields, tokens, roles, ends, adds_bos=pre in _LLAMA3)
    return HuggingFaceTokenizer(json.dumps(data), Files(None), settings, source)


def _sentence_piece(
    fields: Fields,
    tokens: Sequence[str],
    types: Sequence[int],
    roles: Mapping[str, int | None],
    ends: Sequence[int],
) -> Tokenizer:
    from speccascade.text.sentence_piece import SentencePieceTokenizer

    scores = fields.numbers("tokenizer.ggml.scores", [])[: len(tokens)]
    if len(scores) != len(tokens):
        raise UserError(
            f"{fields.source} has {len(tokens)} tokens and {len(scores)} scores; copy it again"
        )
    # llama.cpp looks for these in the text as it is, and its converter writes them so;
    # SentencePiece looks for them where spaces are written as its own symbol.
    pieces = [
        token.replace(" ", _SPACE) if kind == USER_DEFINED else token
        for token, kind in zip(tokens, types, strict=True)
    ]
    space = fields.boolean("tokenizer.ggml.add_space_prefix", True)
    proto = _model_proto(pieces, scores, types, space)
    settings = _settings(fields, tokens, roles, ends, adds_bos=True)
    return SentencePieceTokenizer(proto, Files(None), settings, fields.source)


def _model_proto(
    tokens: Sequence[str], scores: Sequence[float], types: Sequence[int], space: bool
) -> bytes:
    """Writes sentencepiece_model.proto's ModelProto, of the BPE kind, by its field numbers."""

    def varint(number: int, value: int) -> bytes:
        return _varint(number << 3) + _varint(value)

    def block(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    pieces = b"".join(
        block(1, block(1, token.encode()) + b"\x15" + struct.pack("<f", score) + varint(3, kind))
        for token, score, kind in zip(tokens, scores, types, strict=True)
    )
    trainer = varint(3, 2) + varint(35, int(BYTE in types))  # model_type BPE, byte_fallback
    # add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
    normalizer = block(1, b"identity") + varint(3, int(space)) + varint(4, 0) + varint(5, 1)
    return pieces + block(2, trainer) + block(3, normalizer)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
