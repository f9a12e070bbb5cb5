"""A SentencePiece model (Kudo and Richardson 2018), read with `sentencepiece`."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece
from etils import epath

from speccascade.errors import UserError
from speccascade.inputs.fields import Fields
from speccascade.text import end_tokens
from speccascade.text.interface import Tokenizer
from speccascade.text.settings import MOST_IDS, Files, Settings
from speccascade.text.token_content import SPACE

FILE = "tokenizer.model"
_ADDED_FILE = "tokenizer_added.json"
_SIDES = ("lstrip", "rstrip")


class SentencePieceTokenizer(Tokenizer):
    """Its control symbols are special tokens, and so are tokens added behind its own.

    Those that `tokenizer_config.json` adds as not special are text, which may spell them. Every
    stretch of text between special or added tokens is encoded as a text of its own: a model that
    puts a space before a text puts one before each.
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
        if _space_behind(inner):
            raise UserError(
                f"{source} puts a space behind a text (treat_whitespace_as_suffix), which is not "
                "implemented"
            )
        self._added = _added(files, size)
        ids = {name: token["id"] for name, token in self._added.items()}
        tokens += [b""] * (max(ids.values(), default=size - 1) + 1 - size)
        for name, index in ids.items():
            tokens[index] = name.encode()
        settings = settings or files.saved() or _settings(inner, special | ids, files)
        self._spelled = {
            name: token
            for name, token in self._added.items()
            if not token["special"] and token["id"] not in settings.eos_ids
        }
        self._pattern = _pattern(self._spelled)
        special |= {name: index for name, index in ids.items() if name not in self._spelled}
        super().__init__(tokens, special, settings)

    @classmethod
    def load(
        cls, path: epath.Path, model: Mapping[str, Any] | None = None
    ) -> "SentencePieceTokenizer":
        """Reads a file and what stands beside it; `model` as `Files` takes it."""
        return cls(path.read_bytes(), Files(path.parent, model), source=str(path))

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the model as it was read, and the settings beside it."""
        folder = epath.Path(directory)
        self.settings.save(folder)
        (folder / _ADDED_FILE).write_text(json.dumps(_described(self._added), indent=1) + "\n")
        partial = folder / (FILE + ".partial")
        partial.write_bytes(self._proto)
        partial.replace(folder / FILE)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not self._spelled:
            return self._inner.encode(list(texts), out_type=int)
        return [self._encode_segments([text]) for text in texts]

    def _encode_segments(self, segments: Sequence[str | int]) -> list[int]:
        found: list[int] = []
        for part in segments:
            found += [part] if isinstance(part, int) else self._encode_text(part)
        return found

    def _encode_text(self, text: str) -> list[int]:
        if not self._spelled:
            return self._inner.encode(text, out_type=int)
        found: list[int] = []
        at = 0
        for match in self._pattern.finditer(text):
            found += self._inner.encode(text[at : match.start()], out_type=int)
            found.append(self._spelled[match[1]]["id"])
            at = match.end()
        return found + self._inner.encode(text[at:], out_type=int)

    def _content(self) -> bytes:
        return self._proto + json.dumps(_described(self._added), sort_keys=True).encode()


def _space_behind(inner: sentencepiece.SentencePieceProcessor) -> bool:
    pieces = inner.encode("a", out_type=str)
    return bool(pieces) and pieces[-1].endswith(SPACE) and not pieces[0].startswith(SPACE)


def _added(files: Files, size: int) -> dict[str, dict[str, Any]]:
    """Returns the tokens behind the model's own `size`, each with `id` and `special`."""
    saved = files.json(_ADDED_FILE)
    if saved.values:
        return {name: _saved(saved, name) for name in saved.values}
    # T5 counts its sentinels from the end.
    last = size + files.sentinels - 1
    ids = {f"<extra_id_{n}>": last - n for n in range(files.sentinels)}
    ids |= _ids(files.json("added_tokens.json"))
    found = {name: {"id": index, "special": True} for name, index in ids.items()}
    named = files.special()
    decoder = files.tokenizer.object("added_tokens_decoder", {})
    for index in decoder.values:
        if not (index.isdecimal() and len(index) < 9 and int(index) <= MOST_IDS):
            raise decoder.wrong(index, "the token of an id")
        token = decoder.object(index)
        name = token.text("content")
        special = token.boolean("special", True) or name in named
        stripped = {side: True for side in _SIDES if token.boolean(side, False)}
        found[name] = {"id": int(index), "special": special, **stripped}
    return {name: token for name, token in found.items() if token["id"] >= size}


def _saved(saved: Fields, name: str) -> dict[str, Any]:
    """Reads a token as `_described` wrote it."""
    if not isinstance(saved.values[name], Mapping):
        return {"id": saved.integer(name, at_most=MOST_IDS), "special": True}
    token = saved.object(name)
    stripped = {side: True for side in _SIDES if token.boolean(side, False)}
    return {"id": token.integer("id", at_most=MOST_IDS), "special": False, **stripped}


def _described(added: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the JSON-ready form, in which a special token is its id."""
    return {name: token["id"] if token["special"] else dict(token) for name, token in added.items()}


def _pattern(spelled: Mapping[str, Mapping[str, Any]]) -> re.Pattern:
    """Returns what finds added tokens in a text, the longest first, with the spaces they take."""
    names = sorted(spelled, key=len, reverse=True)
    left = "".join(rf"(?:\s*(?={re.escape(n)}))?" for n in names if spelled[n].get("lstrip"))
    right = "".join(rf"(?:(?<={re.escape(n)})\s*)?" for n in names if spelled[n].get("rstrip"))
    return re.compile(f"{left}({'|'.join(map(re.escape, names))}){right}")


def _ids(fields: Fields) -> dict[str, int]:
    """Returns ids by token."""
    return {name: fields.integer(name, at_most=MOST_IDS) for name in fields.values}


def _settings(
    inner: sentencepiece.SentencePieceProcessor, special: dict[str, int], files: Files
) -> Settings:
    def own(index: int) -> tuple[int, ...]:
        return (index,) if index >= 0 else ()

    prefix = () if files.is_t5 else own(inner.bos_id())
    suffix = own(inner.eos_id()) if files.is_t5 else ()
    pieces = [inner.id_to_piece(index) for index in range(inner.get_piece_size())]
    ends = tuple(dict.fromkeys([*own(inner.eos_id()), *end_tokens.find(pieces)]))

    def id_of(name: str) -> int | None:
        return special.get(name)

    settings = files.settings(id_of, prefix, suffix, ends)
    if "pad_token" not in files.names() and inner.pad_id() >= 0:
        settings = settings.replace(pad_id=inner.pad_id())
    return settings
