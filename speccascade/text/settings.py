"""What stands beside a vocabulary: end-of-sequence ids, BOS, the chat template."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any, Self

from etils import epath

from speccascade.errors import UserError
from speccascade.inputs import text_files
from speccascade.inputs.fields import Fields

FILE = "tokenizer_settings.json"
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
T5_SENTINELS = 100
# More token ids than any vocabulary has: a larger one is no id but a slip.
MOST_IDS = 2**24
_MOST_SENTINELS = 10_000
# What a chat template is told where nobody names a day: that of Llama 3's own templates.
DATE = "2024-07-26"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a vocabulary is used.

    Attributes:
      eos_ids: ids that end a text, the tokenizer's own first.
      pad_id: the id that fills rows.
      prefix: ids that stand before a prompt.
      suffix: ids that stand behind it.
      template: the chat template (Jinja); None for a model that has none.
      names: `bos_token` and so on, as a template may ask for them.
      vocab_size: ids from here on are not used; None where all are.
      date: the day that the template is told for today, "2024-07-26"; `DATE` where it asks and none
        is given, None where it does not ask.
    """

    eos_ids: tuple[int, ...]
    pad_id: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    template: str | None = None
    names: tuple[tuple[str, str], ...] = ()
    vocab_size: int | None = None
    date: str | None = None

    def __post_init__(self):
        asks = self.template is not None and "strftime_now" in self.template
        if not asks and self.date is not None:
            raise UserError(f"the chat template asks for no date; leave out date={self.date}")
        if asks:
            object.__setattr__(self, "date", _day(DATE if self.date is None else self.date))

    def describe(self) -> dict[str, Any]:
        """Returns the JSON-ready form."""
        found = {**dataclasses.asdict(self), "names": dict(self.names)}
        return {k: v for k, v in found.items() if (k, v) != ("date", None)}

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with other values."""
        return dataclasses.replace(self, **changes)

    def save(self, directory: epath.Path) -> None:
        """Writes them into a directory."""
        text = json.dumps(self.describe(), indent=1, sort_keys=True)
        (directory / FILE).write_text(text + "\n", encoding="utf-8")


def _day(date: str) -> str:
    try:
        return datetime.date.fromisoformat(date).isoformat()
    except (TypeError, ValueError):
        raise UserError(f'date={date!r} must be a day such as "{DATE}"') from None


class Files:
    """The files of a Hugging Face checkpoint that say how its tokenizer is used."""

    def __init__(self, directory: epath.Path | None, model: Mapping[str, Any] | None = None):
        """Reads them.

        Args:
          directory: where they are; None for a vocabulary that comes without any.
          model: the fields of config.json; None to read it, too.
        """
        self._directory = directory
        self.tokenizer = self.json("tokenizer_config.json")
        self.model = self.json("config.json") if model is None else Fields(model, "config.json")
        self.generation = self.json("generation_config.json")
        self._map = self.json("special_tokens_map.json")

    def json(self, name: str) -> Fields:
        """Returns a file's fields, none where there is no such file."""
        if self._directory is None or not (self._directory / name).exists():
            return Fields({}, name)
        return Fields.read(self._directory / name)

    def saved(self) -> Settings | None:
        """Returns the settings that `Settings.save` wrote, None where it did not."""
        found = self.json(FILE)
        if not found.values:
            return None
        names = found.object("names")
        settings = Settings(
            eos_ids=tuple(found.integers("eos_ids")),
            pad_id=found.integer("pad_id"),
            prefix=tuple(found.integers("prefix", ())),
            suffix=tuple(found.integers("suffix", ())),
            template=found.text("template", None),
            names=tuple((role, names.text(role)) for role in sorted(names.values)),
            vocab_size=found.integer("vocab_size", None, at_least=1),
            date=found.text("date", None),
        )
        if unread := found.unread():
            raise UserError(f"{found.source} has fields of no known use: {', '.join(unread)}")
        return settings

    @property
    def is_t5(self) -> bool:
        """Whether the checkpoint is of the T5 family."""
        kind = self.tokenizer.text("tokenizer_class", "")
        return kind.startswith("T5") or self.model.text("model_type", "") in ("t5", "umt5", "mt5")

    @property
    def sentinels(self) -> int:
        """How many `<extra_id_N>` tokens T5's vocabulary has behind its SentencePiece model."""
        if not self.is_t5:
            return 0
        return self.tokenizer.integer("extra_ids", T5_SENTINELS, at_most=_MOST_SENTINELS)

    def names(self) -> dict[str, str]:
        """Returns how the special tokens with a role are written, by role."""
        found = {}
        for role in _NAMES:
            tokens = (_token(fields, role) for fields in (self.tokenizer, self._map))
            if (token := next(filter(None, tokens), None)) is not None:
                found[role] = token
        return found

    def special(self) -> set[str]:
        """Returns all tokens that these files call special."""
        name = "additional_special_tokens"
        fields = next(filter(lambda f: f.has(name), (self.tokenizer, self._map)), self.tokenizer)
        further = fields.each(name)
        written = {_token(further, place) for place in further.values}
        return (written - {None}) | set(self.names().values())

    def eos_ids(self, id_of: Callable[[str], int | None]) -> tuple[int, ...]:
        """Returns the tokenizer's own end-of-sequence, then those of the model."""
        own = self.names().get("eos_token")
        ids = [] if own is None or id_of(own) is None else [id_of(own)]
        for fields in (self.generation, self.model, self.model.object("text_config", {})):
            further = fields.integers("eos_token_id", None, alone=True)
            if further is not None:
                ids += further
                break
        return tuple(dict.fromkeys(ids))

    def template(self) -> str | None:
        """Returns the chat template, None where there is none."""
        directory = self._directory
        if directory is not None and (directory / "chat_template.jinja").exists():
            return text_files.read(directory / "chat_template.jinja")
        name = "chat_template"
        found = self.tokenizer if self.tokenizer.values.get(name) else self.json(f"{name}.json")
        value = found.values.get(name)
        if isinstance(value, list):  # several, by name
            several = {t.text("name"): t.text("template") for t in found.objects(name)}
            return several.get("default")
        if isinstance(value, Mapping):
            return found.object(name).text("default", None)
        return found.text(name, None)

    def settings(
        self,
        id_of: Callable[[str], int | None],
        prefix: tuple[int, ...],
        suffix: tuple[int, ...],
        ends: tuple[int, ...] = (),
    ) -> Settings:
        """Returns the settings of a vocabulary.

        Args:
          id_of: the id of a token as it is written, None where there is no such token.
          prefix: what the vocabulary's own file puts before a prompt.
          suffix: what it puts behind it.
          ends: its own ends of an answer, for a checkpoint whose files name none.
        """
        names = self.names()
        eos_ids = self.eos_ids(id_of) or ends
        prefix = self._added("bos", id_of, prefix)
        suffix = self._added("eos", id_of, suffix)
        pad_id = id_of(names.get("pad_token", ""))
        if pad_id is None:
            pad_id = eos_ids[0] if eos_ids else 0
        written = tuple(sorted(names.items()))
        return Settings(eos_ids, pad_id, prefix, suffix, self.template(), written)

    def _added(
        self, role: str, id_of: Callable[[str], int | None], ids: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Returns what stands at one side of a prompt: where the config says so, not `ids`."""
        wanted = self.tokenizer.boolean(f"add_{role}_token", None)
        own = id_of(self.names().get(f"{role}_token", ""))
        if wanted is None or (wanted and own is None):
            return ids
        return (own,) if wanted else ()


def _token(fields: Fields, name: str) -> str | None:
    """Returns how a token is written, which is a text or the content of an object."""
    if isinstance(fields.values.get(name), Mapping):
        return fields.object(name).text("content", None)
    return fields.text(name, None)
