"""A Hugging Face `tokenizer.json`, read with `tokenizers`."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tokenizers
from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import text_files
from speccascade.inputs.fields import Fields, show
from speccascade.text import token_content
from speccascade.text.interface import Tokenizer
from speccascade.text.settings import MOST_IDS, Files, Settings

FILE = "tokenizer.json"


@contextlib.contextmanager
def refusing(problem: str) -> Iterator[None]:
    """Turns whatever the library raises for a file into one line that says what the problem is."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, UserError):
        raise
    except BaseException as error:  # bare Exception, and panics, which are none
        reason = " ".join(str(error).split())
        raise UserError(f"{problem}: {reason}") from None


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
        fields = Fields.parse(text, source)
        model, data = fields.object("model"), fields.values
        _check(model)
        added = data.get("added_tokens") or []
        vocab = _ids(model)
        ids = dict(vocab)
        for token in fields.objects("added_tokens", []):
            ids[token.text("content")] = token.integer("id", at_most=MOST_IDS)
            token.boolean("special", False)
        unknown = _unknown(model)
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
        decoder = fields.object("decoder", {}).values or None
        falls_back = model.boolean("byte_fallback", False)
        with refusing(f"{source} has a decoder that cannot be read"):
            content = token_content.of_decoder(decoder, falls_back, source)
        tokens = [b""] * (max(ids.values()) + 1)
        plain = {token["content"] for token in added} - special.keys()
        for name, index in ids.items():
            # A normalizer that puts a space before a text puts one into an added token, too.
            written = self._inner.id_to_token(index) if name in plain else name
            tokens[index] = name.encode() if name in special else content(written or name)
        for name in plain:
            # A letter such as "é" stands for a byte in the byte-level alphabet, but an added token
            # is found in the text itself, where it is that letter.
            content_bytes = tokens[ids[name]]
            is_byte = name in vocab and len(content_bytes) == 1
            if not is_byte and not _is_text(content_bytes):
                tokens[ids[name]] = name.encode()
        super().__init__(tokens, special, settings)

    @classmethod
    def load(
        cls, path: epath.Path, model: Mapping[str, Any] | None = None
    ) -> "HuggingFaceTokenizer":
        """Reads a file and what stands beside it; `model` as `Files` takes it."""
        return cls(text_files.read(path), Files(path.parent, model), source=str(path))

    def save(self, directory: str | os.PathLike) -> None:
        """Writes `tokenizer.json` as it was read, and the settings beside it."""
        folder = epath.Path(directory)
        self.settings.save(folder)
        partial = folder / (FILE + ".partial")
        partial.write_text(self._text, encoding="utf-8")
        partial.replace(folder / FILE)

    def _encoder(self, data: Mapping[str, Any], renamed: Mapping[str, str]) -> tokenizers.Tokenizer:
        model = dict(data["model"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {renamed.get(name, name): i for name, i in model["vocab"].items()}
            pairs = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or []]
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
        with refusing("the tokenizer cannot be read, perhaps truncated"):
            return tokenizers.Tokenizer.from_str(json.dumps({**data, **changed}))

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode_segments(self, segments: Sequence[str | int]) -> list[int]:
        parts = (part if isinstance(part, str) else self._secret[part] for part in segments)
        return self._inner.encode("".join(parts), add_special_tokens=False).ids

    def _content(self) -> bytes:
        return self._text.encode()


def _ids(model: Fields) -> dict[str, int]:
    """Returns the vocabulary; as it is, because it has hundreds of thousands of entries."""
    vocab = model.values.get("vocab")
    if isinstance(vocab, list):
        for place, entry in enumerate(vocab):
            if not (isinstance(entry, list) and entry and isinstance(entry[0], str)):
                raise model.each("vocab").wrong(str(place), "a token and its score")
        found = {entry[0]: place for place, entry in enumerate(vocab)}
    else:
        found = dict(model.object("vocab").values)
        for token, index in found.items():
            if type(index) is not int or not 0 <= index <= MOST_IDS:
                raise model.object("vocab").wrong(token, f"an id from 0 to {MOST_IDS}")
    if not found:
        raise model.wrong("vocab", "the ids of some tokens")
    return found


def _unknown(model: Fields) -> str | None:
    """Returns the token of what cannot be encoded, None where there is none."""
    vocab = model.values["vocab"]
    if model.has("unk_id") and isinstance(vocab, list):
        return vocab[model.integer("unk_id", at_most=len(vocab) - 1)][0]
    return model.text("unk_token", None)


def _check(model: Fields) -> None:
    kind = "Unigram" if isinstance(model.values.get("vocab"), list) else "BPE"
    if (kind := model.text("type", kind)) not in ("BPE", "Unigram"):
        raise UserError(
            f"{model.source} is a {kind} tokenizer; only BPE and Unigram are implemented"
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.values.get(name):
            raise UserError(
                f"{model.source} has {name}={show(model.values[name])}, which is not implemented"
            )


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
    with refusing(f"the post_processor of {source} cannot be read"):
        found = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", **tiny})).encode("a")
        at = found.special_tokens_mask.index(0)
    return tuple(found.ids[:at]), tuple(found.ids[at + 1 :])


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
