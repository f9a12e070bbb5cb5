"""A SentencePiece model (Kudo and Richardson 2018), read with `sentencepiece`."""

import json
import os
from collections.abc import Sequence

import sentencepiece
from etils import epath

from speccascade.errors import UserError
from speccascade.text.interface import Tokenizer
from speccascade.text.settings import Files, Settings
from speccascade.text.token_content import SPACE

FILE = "tokenizer.model"
_ADDED_FILE = "tokenizer_added.json"


class SentencePieceTokenizer(Tokenizer):
    """Its control symbols are special tokens, and so are tokens added behind its own.

    In a conversation every stretch of text between special tokens is encoded as a text of its own:
    a model that puts a space before a text puts one before each.
    """

    def __init__(
        self, proto: bytes, files: Files, settings: Settings | None = None, source: str = FILE
    ):
        """Reads a model.

        Args:
          proto: what the file holds.
          files: what stands beside it.
          settings: of its tokens; None to find them in `files`.
          source: what messages call it.

        Raises:
          UserError: it is damaged.
        """
        try:
            inner = sentencepiece.SentencePieceProcessor(model_proto=proto)
            size = inner.get_piece_size()
        except Exception as error:  # the library raises several kinds
            reason = " ".join(str(error).split())
            raise UserError(
                f"{source} is no SentencePiece model, perhaps truncated: {reason}"
            ) from None
        if size == 0:
            raise UserError(f"{source} holds no tokens, perhaps truncated; copy it again")
        self._inner, self._proto = inner, proto
        tokens, special = [], {}
        for index in range(size):
            piece = inner.id_to_piece(index)
            if inner.is_byte(index):
                tokens.append(bytes.fromhex(piece[3:5]))
            elif inner.is_control(index) or inner.is_unknown(index):
                tokens.append(piece.encode())
                special[piece] = index
            else:
                tokens.append(piece.replace(SPACE, " ").encode())
        self._added = _added(files, size)
        tokens += [b""] * (max(self._added.values(), default=size - 1) + 1 - size)
        for name, index in self._added.items():
            tokens[index] = name.encode()
        special |= self._added
        settings = settings or files.saved() or _settings(inner, special, files)
        super().__init__(tokens, special, settings)

    @classmethod
    def load(cls, path: epath.Path) -> "SentencePieceTokenizer":
        """Reads a file and what stands beside it."""
        return cls(path.read_bytes(), Files(path.parent), source=str(path))

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model as it was read, and the settings beside it."""
        directory = epath.Path(directory)
        self.settings.save(directory)
        (directory / _ADDED_FILE).write_text(json.dumps(self._added, indent=1) + "\n")
        partial = directory / (FILE + ".partial")
        partial.write_bytes(self._proto)
        partial.replace(directory / FILE)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self._inner.encode(list(texts), out_type=int)

    def _encode_segments(self, segments: Sequence[str | int]) -> list[int]:
        found: list[int] = []
        for part in segments:
            found += [part] if isinstance(part, int) else self._inner.encode(part, out_type=int)
        return found

    def _content(self) -> bytes:
        return self._proto + json.dumps(self._added, sort_keys=True).encode()


def _added(files: Files, size: int) -> dict[str, int]:
    """Returns the tokens behind the model's own `size`."""
    if saved := files.json(_ADDED_FILE):
        return saved
    # T5 counts its sentinels from the end.
    last = size + files.sentinels - 1
    found = {f"<extra_id_{n}>": last - n for n in range(files.sentinels)}
    found |= files.json("added_tokens.json")
    for index, token in files.tokenizer.get("added_tokens_decoder", {}).items():
        found[token["content"]] = int(index)
    return {name: index for name, index in found.items() if index >= size}


def _settings(
    inner: sentencepiece.SentencePieceProcessor, special: dict[str, int], files: Files
) -> Settings:
    def own(index: int) -> tuple[int, ...]:
        return (index,) if index >= 0 else ()

    prefix = () if files.is_t5 else own(inner.bos_id())
    suffix = own(inner.eos_id()) if files.is_t5 else ()
    eos_id = inner.eos_id() if inner.eos_id() >= 0 else None

    def id_of(name: str) -> int | None:
        return special.get(name)

    settings = files.settings(id_of, prefix, suffix, eos_id)
    if "pad_token" not in files.names() and inner.pad_id() >= 0:
        settings = settings.replace(pad_id=inner.pad_id())
    return settings
