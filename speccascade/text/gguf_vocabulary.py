"""The vocabulary inside a GGUF file, its `tokenizer.ggml.*` metadata.

Byte-level BPE ("gpt2") becomes a `tokenizer.json`, a SentencePiece-like vocabulary ("llama") a
SentencePiece model, so that each kind of tokenizer has one implementation.
"""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from speccascade import gguf_header
from speccascade.errors import UserError
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
SPLITS["llama3"] = SPLITS["llama-v3"] = SPLITS["llama-bpe"]
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")

# The format has no list of end-of-sequence tokens: these end an answer wherever they are control
# tokens, as they do in llama.cpp.
_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
)


def load(path: str | os.PathLike) -> Tokenizer:
    """Reads the vocabulary of a GGUF file.

    Raises:
      UserError: it is damaged, has no vocabulary, or one that is not implemented.
    """
    try:
        fields = gguf_header.read(path).metadata
    except FileNotFoundError:
        raise UserError(f"no tokenizer at {path}; give a GGUF file or a directory") from None
    return from_fields(fields, str(path))


def from_fields(fields: Mapping[str, Any], source: str) -> Tokenizer:
    """Returns the tokenizer that metadata describes.

    Args:
      fields: the values of the file's `tokenizer.*` keys.
      source: what messages call it.
    """
    made = {"gpt2": _byte_level, "llama": _sentence_piece}
    kind = fields.get("tokenizer.ggml.model")
    if kind not in made:
        raise UserError(
            f"{source} has a vocabulary of kind {kind!r}; only {' and '.join(made)} are implemented"
        )
    tokens = list(fields.get("tokenizer.ggml.tokens", ()))
    types = list(fields.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens)))
    if not tokens or len(types) != len(tokens):
        raise UserError(f"{source} has {len(tokens)} tokens and {len(types)} types; copy it again")
    # Rows that only fill up the embedding have made-up names.
    while tokens and types[-1] == UNUSED and tokens[-1] == f"[PAD{len(tokens) - 1}]":
        tokens.pop()
        types.pop()
    return made[kind](fields, tokens, types, source)


def _settings(
    fields: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], adds_bos: bool
) -> Settings:
    def field(name: str) -> Any:
        return fields.get(f"tokenizer.ggml.{name}")

    roles = {role: field(f"{role}_token_id") for role in ("eos", "eot", "eom", "bos")}
    known = [roles[role] for role in ("eos", "eot", "eom")]
    ends = [i for i, token in enumerate(tokens) if types[i] == CONTROL and token in _ENDS]
    eos_ids = tuple(dict.fromkeys(i for i in (*known, *ends) if i is not None))
    bos = () if roles["bos"] is None else (roles["bos"],)
    wanted = field("add_bos_token")
    prefix = bos if (adds_bos if wanted is None else wanted) else ()
    suffix = eos_ids[:1] if field("add_eos_token") else ()
    pad_id = field("padding_token_id")
    if pad_id is None:
        pad_id = eos_ids[0] if eos_ids else 0
    ids = {**roles, "pad": pad_id, "unk": field("unknown_token_id")}
    names = {
        f"{role}_token": tokens[i]
        for role, i in ids.items()
        if i is not None and 0 <= i < len(tokens)
    }
    template = fields.get("tokenizer.chat_template")
    return Settings(eos_ids, pad_id, prefix, suffix, template, tuple(sorted(names.items())))


def _byte_level(
    fields: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], source: str
) -> Tokenizer:
    pre = fields.get("tokenizer.ggml.pre", "default")
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
            "merges": list(fields.get("tokenizer.ggml.merges", ())),
        },
    }
    settings = _settings(fields, tokens, types, adds_bos=pre in _LLAMA3)
    return HuggingFaceTokenizer(json.dumps(data), Files(None), settings, source)


def _sentence_piece(
    fields: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], source: str
) -> Tokenizer:
    from speccascade.text.sentence_piece import SentencePieceTokenizer

    scores = fields.get("tokenizer.ggml.scores", ())[: len(tokens)]
    if len(scores) != len(tokens):
        raise UserError(
            f"{source} has {len(tokens)} tokens and {len(scores)} scores; copy it again"
        )
    space = fields.get("tokenizer.ggml.add_space_prefix", True)
    proto = _model_proto(tokens, scores, types, space)
    settings = _settings(fields, tokens, types, adds_bos=True)
    return SentencePieceTokenizer(proto, Files(None), settings, source)


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
