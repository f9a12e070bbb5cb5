"""Tokenizers: the project's own, and those of imported checkpoints.

byte_bpe.py          byte-level BPE that this package trains
hugging_face.py      a Hugging Face `tokenizer.json`
sentence_piece.py    a SentencePiece `.model`
gguf_vocabulary.py   the vocabulary inside a GGUF file
end_tokens.py        which of its tokens end an answer
token_content.py     the bytes of a token, from the decoder of a `tokenizer.json`
settings.py          what stands beside a vocabulary: end-of-sequence ids, BOS, the chat template
chat.py              chat templates
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers
from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import paths, text_files
from speccascade.text import byte_bpe, hugging_face
from speccascade.text.interface import Tokenizer, show

__all__ = ["Tokenizer", "is_in", "load", "show", "train"]

_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.model")


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Returns the project's own tokenizer, learnt from `texts`; see `ByteBPE.train`."""
    return byte_bpe.ByteBPE.train(texts, vocab_size)


def is_in(directory: str | os.PathLike) -> bool:
    """Returns whether a directory holds a tokenizer's file."""
    directory = paths.plain(directory)
    return any((epath.Path(directory) / name).exists() for name in _FILES)


def load(path: str | os.PathLike, model: Mapping[str, Any] | None = None) -> Tokenizer:
    """Reads a tokenizer of any kind.

    Args:
      path: `tokenizer.json`, a SentencePiece `.model` or a `.gguf` file, or a directory that holds
        one of the first two, as `Tokenizer.save` and Hugging Face checkpoints have it.
      model: the fields of the config.json of a model whose files have none; None to read it beside
        the tokenizer.

    Raises:
      UserError: there is none, or it is damaged or not implemented.
    """
    file = epath.Path(paths.plain(path))
    if file.is_dir():
        file = next((file / name for name in _FILES if (file / name).exists()), file / _FILES[0])
    if not file.exists():
        raise UserError(
            f"no tokenizer at {file}; give a directory with one of: {', '.join(_FILES)}"
        )
    if file.suffix == ".gguf":
        from speccascade.text import gguf_vocabulary

        return gguf_vocabulary.load(file)
    if file.suffix == ".model":
        from speccascade.text.sentence_piece import SentencePieceTokenizer

        return SentencePieceTokenizer.load(file, model)
    text = text_files.read(file)
    with hugging_face.refusing(f"{file} is not a tokenizer file, perhaps truncated"):
        inner = tokenizers.Tokenizer.from_str(text)
    if byte_bpe.is_own(inner):
        return byte_bpe.ByteBPE(inner)
    return hugging_face.HuggingFaceTokenizer.load(file, model)
