"""The project's own tokenizer: byte-level BPE in which every digit is a token of its own."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

from speccascade.errors import UserError
from speccascade.text.byte_level import to_bytes
from speccascade.text.interface import Tokenizer
from speccascade.text.settings import Settings

PAD = "<|pad|>"
EOS = "<|eos|>"
_SPECIAL = {PAD: 0, EOS: 1}
FILE = "tokenizer.json"

# Numbers are what a worked answer copies and computes, so a digit must look the same wherever it
# stands: each is cut out alone, and the space before a number goes to the word or sign before it
# ("costs " + "1" + "2", " = " + "7"). Other words carry their leading space, as usual.
_PIECES = r"\p{N}| ?\p{L}+(?: (?=\p{N}))?| ?[^\s\p{L}\p{N}]+(?: (?=\p{N}))?|\s+"


def is_own(inner: tokenizers.Tokenizer) -> bool:
    """Returns whether `train` made this tokenizer."""
    return all(inner.token_to_id(name) == index for name, index in _SPECIAL.items())


class ByteBPE(Tokenizer):
    """Every byte string can be encoded; there are two special tokens and no chat template."""

    def __init__(self, inner: tokenizers.Tokenizer):
        """Takes a tokenizer for which `is_own` holds."""
        inner.encode_special_tokens = True
        self._inner = inner
        vocab = inner.get_vocab()
        tokens = [b""] * len(vocab)
        for token, index in vocab.items():
            tokens[index] = token.encode() if token in _SPECIAL else to_bytes(token)
        super().__init__(tokens, _SPECIAL, Settings(eos_ids=(_SPECIAL[EOS],), pad_id=_SPECIAL[PAD]))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "ByteBPE":
        """Learns `vocab_size` tokens (two special, 256 bytes, merges) from `texts`."""
        if vocab_size < 258:
            raise UserError(f"vocab_size is {vocab_size}; it needs 2 special tokens and 256 bytes")
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(_PIECES), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(_SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `tokenizer.json`, which is either whole or absent."""
        path = epath.Path(directory) / FILE
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self._inner.to_str(pretty=True), encoding="utf-8")
        partial.replace(path)

    @property
    def content_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self._content()).hexdigest()[:16]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode_segments(self, segments: Sequence[str | int]) -> list[int]:
        parts = (self.encode(s) if isinstance(s, str) else [s] for s in segments)
        return [i for part in parts for i in part]

    def _content(self) -> bytes:
        return self._inner.to_str().encode()
