"""A Hugging Face `tokenizer.json`, read with `tokenizers`."""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from etils import epath

from speccascade.errors import UserError
from speccascade.text import token_content
from speccascade.text.interface import Tokenizer
from speccascade.text.settings import Files, Settings

FILE = "tokenizer.json"


class HuggingFaceTokenizer(Tokenizer):
    """BPE (byte-level, or over characters with bytes to fall back on) or Unigram.

    The vocabulary itself may hold special tokens: T5's would encode "</s>" as its end of sequence.
    So the encoder knows them under names that nobody can guess. Then text cannot spell them, and a
    chat template's special tokens go in under those names.
    """

    def __init__(
        self, text: str, files: Files, settings: Settings | None = None, source: str = FILE
    ):
        """Reads a tokenizer.

        Args:
          text: what the file holds.
          files: what stands beside it.
          settings: of its tokens; None to find them in `files`.
          source: what messages call it.

        Raises:
          UserError: it is damaged, or of a kind that is not implemented.
        """
        try:
            data = json.loads(text)
            model, added = data["model"], data.get("added_tokens") or []
            vocab = _ids(model)
            ids = vocab | {token["content"]: token["id"] for token in added}
            unknown = _unknown(model)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{source} is not a tokenizer file, perhaps truncated: {error}"
            ) from None
        _check(model, source)
        prefix, suffix = _around(data.get("post_processor"), source)
        settings = settings or files.saved() or files.settings(ids.get, prefix, suffix)
        named = files.special() | {unknown} | {t["content"] for t in added if t.get("special")}
        stop = set(settings.eos_ids)
        special = {name: i for name, i in ids.items() if name in named or i in stop}
        nonce = secrets.token_hex(16)
        self._secret = {index: f"{nonce}{index:08d}" for index in special.values()}
        self._text = text
        self._inner = self._encoder(data, {name: self._secret[i] for name, i in special.items()})
        for index, secret in self._secret.items():
            if self._inner.token_to_id(secret) != index:
                raise UserError(f"{source} gives token {index} two ids; copy the checkpoint again")
        falls_back = bool(model.get("byte_fallback"))
        content = token_content.of_decoder(data.get("decoder"), falls_back, source)
        tokens = [b""] * (max(ids.values()) + 1)
        for name, index in ids.items():
            tokens[index] = name.encode() if name in special else content(name)
        for name in {token["content"] for token in added} - special.keys():
            # A letter such as "é" stands for a byte in the byte-level alphabet, but an added token
            # is found in the text itself, where it is that letter.
            data, is_byte = tokens[ids[name]], name in vocab and len(tokens[ids[name]]) == 1
            if not is_byte and not _is_text(data):
                tokens[ids[name]] = name.encode()
        super().__init__(tokens, special, settings)

    @classmethod
    def load(cls, path: epath.Path) -> "HuggingFaceTokenizer":
        """Reads a file and what stands beside it."""
        return cls(path.read_text(), Files(path.parent), source=str(path))

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `tokenizer.json` as it was read, and the settings beside it."""
        directory = epath.Path(directory)
        self.settings.save(directory)
        partial = directory / (FILE + ".partial")
        partial.write_text(self._text)
        partial.replace(directory / FILE)

    def _encoder(self, data: Mapping[str, Any], renamed: Mapping[str, str]) -> tokenizers.Tokenizer:
        model = dict(data["model"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {renamed.get(name, name): i for name, i in model["vocab"].items()}
            pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
            model["merges"] = [
                [left, right]
                for left, right in pairs
                if not {left, right, left + right} & renamed.keys()
            ]
            model["unk_token"] = renamed.get(model.get("unk_token"), model.get("unk_token"))
        else:
            model["vocab"] = [[renamed.get(name, name), score] for name, score in model["vocab"]]
        added = [
            {**token, "content": renamed[token["content"]], "special": True, "normalized": False}
            if token["content"] in renamed
            else token
            for token in data.get("added_tokens") or []
        ]
        known = {token["content"] for token in added}
        added += [
            {
                "id": next(i for i, s in self._secret.items() if s == secret),
                "content": secret,
                "special": True,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            }
            for secret in renamed.values()
            if secret not in known
        ]
        changed = {
            "model": model,
            "added_tokens": added,
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        try:
            return tokenizers.Tokenizer.from_str(json.dumps({**data, **changed}))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"the tokenizer cannot be read, perhaps truncated: {error}") from None

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode_segments(self, segments: Sequence[str | int]) -> list[int]:
        parts = (part if isinstance(part, str) else self._secret[part] for part in segments)
        return self._inner.encode("".join(parts), add_special_tokens=False).ids

    def _content(self) -> bytes:
        return self._text.encode()


def _ids(model: Mapping[str, Any]) -> dict[str, int]:
    vocab = model["vocab"]
    return dict(vocab) if isinstance(vocab, dict) else {t: i for i, (t, _) in enumerate(vocab)}


def _unknown(model: Mapping[str, Any]) -> str | None:
    """Returns the token of what cannot be encoded, None where there is none."""
    if model.get("unk_id") is not None:
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def _check(model: Mapping[str, Any], source: str) -> None:
    kind = model.get("type", "Unigram" if isinstance(model["vocab"], list) else "BPE")
    if kind not in ("BPE", "Unigram"):
        raise UserError(f"{source} is a {kind} tokenizer; only BPE and Unigram are implemented")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise UserError(f"{source} has {name}={model[name]!r}, which is not implemented")


def _around(processor: Mapping[str, Any] | None, source: str) -> tuple[tuple, tuple]:
    """Returns the ids that a post-processor puts before and behind a text."""
    if processor is None:
        return (), ()
    # Any kind of processor tells by what it makes of one token.
    tiny = {
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        "post_processor": processor,
        "added_tokens": [],
    }
    try:
        found = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **tiny})).encode("a")
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"the post_processor of {source} cannot be read: {error}") from None
    at = found.special_tokens_mask.index(0)
    return tuple(found.ids[:at]), tuple(found.ids[at + 1 :])


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
