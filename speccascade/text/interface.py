"""What the rest of the package knows of a tokenizer."""

import abc
import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from speccascade.errors import UserError
from speccascade.inputs import plain_text
from speccascade.text.settings import Settings

# What may stand before a text, to encode it as one that goes on.
_MARKS = ("\n", "\0", "|", ")", "0")


class Tokenizer(abc.ABC):
    """Text <-> token ids. Immutable; two tokenizers are equal if their content is.

    Special tokens never come out of `encode`: text that spells one is text. Only a chat template
    (`encode_chat`), and what the checkpoint puts around a prompt, produce them.

    Attributes:
      settings: end-of-sequence ids, what stands around a prompt, the chat template.
      special: ids of the special tokens by how they are written.
    """

    settings: Settings
    special: Mapping[str, int]

    def __init__(self, tokens: Sequence[bytes], special: Mapping[str, int], settings: Settings):
        """Takes what every kind has.

        Args:
          tokens: the content of each id: the bytes of the text that it stands for, or how a special
            token is written; empty where an id has no token.
          special: ids of the special tokens by how they are written.
          settings: of these tokens.

        Raises:
          UserError: there is no end-of-sequence id, or one that is no token's.
        """
        self.settings = settings
        self.special = dict(special)
        self._tokens = list(tokens)
        silent = set(self.special.values())
        self._bytes = [b"" if i in silent else token for i, token in enumerate(self._tokens)]
        # Whether a space is put before a text that is encoded.
        self._leading_space = self.data(self._encode(["a"])[0]).startswith(b" ")
        if settings.vocab_size is not None:
            self._trim(settings.vocab_size)
        if not settings.eos_ids:
            raise UserError(
                "the tokenizer has no end-of-sequence token; name one as eos_token in the "
                "checkpoint's tokenizer_config.json, or as eos_token_id in its generation_config"
                ".json or config.json"
            )
        around = ("prefix", settings.prefix), ("suffix", settings.suffix)
        known = ("eos_ids", settings.eos_ids), ("pad_id", (settings.pad_id,)), *around
        for name, ids in known:
            if bad := [i for i in ids if not 0 <= i < self.vocab_size]:
                raise UserError(
                    f"{name} {', '.join(map(str, bad))} of the checkpoint is outside its "
                    f"{self.vocab_size} tokens; correct its generation_config.json or config.json"
                )

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self._bytes)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a text; the first is the one to put behind a text that is trained on."""
        return self.settings.eos_ids

    @property
    def pad_id(self) -> int:
        """The id that fills rows of unequal length."""
        return self.settings.pad_id

    @property
    def content_hash(self) -> str:
        """16 hex digits of the vocabulary and of the settings."""
        parts = self._content(), json.dumps(self.settings.describe(), sort_keys=True).encode()
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def encode(self, text: str, bos: bool = False) -> list[int]:
        """Returns the ids of a text.

        Args:
          text: any text; what spells a special token in it is text.
          bos: whether this is a whole prompt: then what the checkpoint puts around one is added,
            such as a beginning-of-sequence (Gemma, Llama) or the end that T5's encoder expects.
        """
        return self.encode_batch([text], bos)[0]

    def encode_batch(self, texts: Sequence[str], bos: bool = False) -> list[list[int]]:
        """Returns `encode` of each text.

        Raises:
          UserError: something is no text, or holds half a surrogate pair.
        """
        found = self._encode(plain_text.several(texts, "texts"))
        if bos:
            prefix, suffix = list(self.settings.prefix), list(self.settings.suffix)
            found = [prefix + ids + suffix for ids in found]
        return found

    def encode_answers(self, answers: Sequence[str], begins: bool = False) -> list[list[int]]:
        """Returns the ids of texts that go on from others, such as a prompt's answers.

        Args:
          answers: texts.
          begins: whether they are texts of their own all the same, as behind an encoder. Otherwise
            no space is put before them.
        """
        found = self.encode_batch(answers)
        if begins or not self._leading_space:
            return found
        left = list(range(len(answers)))
        # Behind a character that stays a token of its own, no space is put.
        for mark in _MARKS:
            lead = self.encode(mark)
            if not self.data(lead).endswith(mark.encode()):
                continue  # this vocabulary cannot write it
            longer = self.encode_batch([mark + answers[i] for i in left])
            apart = {i: ids for i, ids in zip(left, longer, strict=True) if _begin(ids, lead)}
            for i, ids in apart.items():
                found[i] = ids[len(lead) :]
            left = [i for i in left if i not in apart]
        return found

    def encode_prompts(self, prompts: Sequence[str], chat: bool = False) -> list[list[int]]:
        """Returns the ids of prompts.

        Args:
          prompts: texts to go on with or, with `chat`, to answer.
          chat: whether each is a user's message to a model that was tuned for conversations.
        """
        prompts = plain_text.several(prompts, "prompts")
        if not chat:
            return self.encode_batch(prompts, bos=True)
        return [self.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]

    def encode_chat(self, messages: Sequence[Mapping]) -> list[int]:
        """Returns the ids of a conversation, up to where the model's answer begins.

        Args:
          messages: `{"role": "user", "content": TEXT}` and so on, as the chat template expects
            them. No special token comes of what they contain.

        Raises:
          UserError: there is no chat template, or it refuses these messages.
        """
        ids = self._encode_segments(self._render(messages))
        if bad := [i for i in ids if i >= self.vocab_size]:
            raise UserError(
                f"the chat template writes token {bad[0]}, which the model does not have; give a "
                "tokenizer and a chat template that belong to the model"
            )
        return ids

    def encode_chat_opening(self) -> list[int]:
        """Returns the ids of a conversation, up to where a user's first message begins.

        A model that was tuned for conversations goes on from there with a message of its own
        making (Xu et al. 2024, "Magpie").

        Raises:
          UserError: there is no chat template, or none that shows a user's message.
        """
        mark = "9" * 24
        parts = self._render([{"role": "user", "content": mark}])
        for i, part in enumerate(parts):
            if isinstance(part, str) and mark in part:
                opening = part[: part.index(mark)]
                return self._encode_segments([*parts[:i], *([opening] if opening else [])])
        raise UserError("the chat template does not show a user's message")

    def chat(self, messages: Sequence[Mapping]) -> str:
        """Returns the text of a conversation, up to where the model's answer begins."""
        names = {index: name for name, index in self.special.items()}
        parts = self._render(messages)
        return "".join(part if isinstance(part, str) else names[part] for part in parts)

    def _render(self, messages: Sequence[Mapping]) -> list[str | int]:
        from speccascade.text.chat import segments  # Jinja, which most decoding does not need

        return segments(self.settings, self.special, messages)

    def decode(self, ids: Iterable[int], begins: bool = False) -> str:
        """Returns the text that `ids` add to one that goes on, as an answer does from its prompt.

        Special tokens vanish, and bytes that are no UTF-8 become U+FFFD: also those of a character
        that began before `ids`.

        Args:
          ids: of any tokens.
          begins: whether a text begins with them. A kind that puts a space before a text takes it
            away again.
        """
        data = self.data(ids)
        return (self._opened(data) if begins else data).decode("utf-8", errors="replace")

    def data(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes that `ids` add to a text that goes on."""
        return b"".join(self._bytes[int(i)] for i in ids)

    def token_bytes(self, index: int, begins: bool = False) -> bytes:
        """Returns the bytes that a token adds to a text; none for a special token.

        With `begins` no token with bytes stands before it.
        """
        data = self._bytes[index]
        return self._opened(data) if begins else data

    def _opened(self, data: bytes) -> bytes:
        """Returns what begins a text without the space that was put before it."""
        return data.removeprefix(b" ") if self._leading_space else data

    def tokens(self) -> list[bytes]:
        """Returns each id's content, to compare vocabularies: a special token's is how it is
        written, and an id without a token has none."""
        return list(self._tokens)

    def dated(self, date: str) -> Self:
        """Returns this tokenizer with a chat template that takes `date` for today.

        Raises:
          UserError: it is no day such as "2024-07-26", or the template asks for none.
        """
        other = copy.copy(self)
        other.settings = self.settings.replace(date=date)
        return other

    def trimmed(self, vocab_size: int) -> Self:
        """Returns this tokenizer without the ids from `vocab_size` on.

        Raises:
          UserError: text may need one of them.
        """
        if vocab_size == self.vocab_size:
            return self
        other = copy.copy(self)
        other.settings = self.settings.replace(vocab_size=vocab_size)
        other._trim(vocab_size)
        return other

    def _trim(self, vocab_size: int) -> None:
        if vocab_size > len(self._bytes):
            raise UserError(f"the tokenizer has {len(self._bytes)} tokens, not {vocab_size}")
        lost = [i for i in range(vocab_size, len(self._bytes)) if self._bytes[i]]
        if lost:
            raise UserError(
                f"the model has {vocab_size} token ids but its tokenizer writes id {lost[0]}, "
                f"{show(self._tokens[lost[0]])}; give the tokenizer that belongs to the model"
            )
        self._bytes, self._tokens = self._bytes[:vocab_size], self._tokens[:vocab_size]

    @abc.abstractmethod
    def save(self, directory: str | os.PathLike) -> None:
        """Writes files of which `speccascade.text.load(directory)` makes an equal tokenizer."""

    @abc.abstractmethod
    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes texts without special tokens."""

    @abc.abstractmethod
    def _encode_segments(self, segments: Sequence[str | int]) -> list[int]:
        """Encodes a text in which special tokens stand as their ids."""

    @abc.abstractmethod
    def _content(self) -> bytes:
        """What makes the vocabulary, apart from the settings."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)


def _begin(ids: Sequence[int], lead: Sequence[int]) -> bool:
    return list(ids[: len(lead)]) == list(lead)


def show(token: bytes) -> str:
    """Returns a token's content as people read it."""
    if not token:
        return "no token"
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)
