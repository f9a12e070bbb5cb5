"""Byte-level BPE in which every digit is a token of its own."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from speccascade.errors import UserError

PAD = "<|pad|>"
EOS = "<|eos|>"

# Numbers are what a worked answer copies and computes, so a digit must look the same wherever it
# stands: each is cut out alone, and the space before a number goes to the word or sign before it
# ("costs " + "1" + "2", " = " + "7"). Other words carry their leading space, as usual.
_PIECES = r"\p{N}| ?\p{L}+(?: (?=\p{N}))?| ?[^\s\p{L}\p{N}]+(?: (?=\p{N}))?|\s+"


def _byte_of_char() -> dict[str, int]:
    """Inverse of the byte-level alphabet: printable stand-in character -> byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    others = (b for b in range(256) if b not in set(printable))
    table.update({chr(256 + n): b for n, b in enumerate(others)})
    return table


_BYTE_OF_CHAR = _byte_of_char()


class Tokenizer:
    """Text <-> token ids. Immutable; two tokenizers are equal if their files are.

    Every byte string can be encoded. The two special tokens never come out of `encode`: text that
    spells them is text.
    """

    pad_id = 0
    eos_id = 1

    def __init__(self, inner: tokenizers.Tokenizer):
        for name, wanted in ((PAD, self.pad_id), (EOS, self.eos_id)):
            if inner.token_to_id(name) != wanted:
                raise UserError(f"the tokenizer must have {name} as id {wanted}; retrain it")
        inner.encode_special_tokens = True
        self._inner = inner
        vocab = inner.get_vocab()
        self._bytes = [b""] * len(vocab)
        for token, index in vocab.items():
            if token not in (PAD, EOS):
                self._bytes[index] = bytes(_BYTE_OF_CHAR[c] for c in token)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
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
            special_tokens=[PAD, EOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads a file written by `save`; `UserError` if it is missing or damaged."""
        if not os.path.isfile(path):
            raise UserError(f"no tokenizer at {path}; give the directory of a trained model")
        try:
            inner = tokenizers.Tokenizer.from_file(os.fspath(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"{path} is not a tokenizer file, perhaps truncated: {error}"
            ) from error
        return cls(inner)

    def save(self, path: str | os.PathLike) -> None:
        self._inner.save(os.fspath(path))

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    @property
    def content_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self._inner.to_str().encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens vanish, bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self._bytes[int(i)] for i in ids).decode("utf-8", errors="replace")

    def token_bytes(self, index: int) -> bytes:
        """The bytes that a token stands for; empty for the special tokens."""
        return self._bytes[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)
