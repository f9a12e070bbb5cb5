"""A setting: everything that decides what is decoded and how, as one frozen value.

What a setting's method and its drafting know of themselves is in `methods/` and `drafting/`, one
file each; this file says what they have to know.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from speccascade import decode, learned_head
from speccascade.decode import Rows
from speccascade.errors import UserError
from speccascade.pairs import Pair
from speccascade.rules import Rule

TRUNCATIONS = ("top_k", "top_p", "min_p")
Pairs = tuple[tuple[str, Any], ...]  # a number, or the reference of a head


@dataclasses.dataclass(frozen=True)
class Room:
    """Where a batch is decoded.

    Attributes:
      pair: the models.
      max_new_tokens: room for an answer.
      run: what runs a batch of a `decode.Decoder`: `decode.generate`, or `decode.trace`.
    """

    pair: Pair
    max_new_tokens: int
    run: Callable = decode.generate


class Drafting:
    """How a setting's blocks are drafted: a frozen dataclass of its choices.

    Attributes:
      name: what docs call it.
      fields: those that a setting may give it, for `read`; `prefix*` stands for all that begin so.
    """

    name: str

    @property
    def has_q(self) -> bool:
        """Whether there is a distribution of the models alone, to score references by."""
        return True

    @classmethod
    def read(cls, given: Mapping[str, Any], rule: str) -> tuple["Drafting | None", set[str]]:
        """Reads what a setting says of its drafting.

        Args:
          given: the setting's fields.
          rule: its rule.

        Returns:
          The drafting, None where the setting names another; and the fields that it knows.

        Raises:
          UserError: a field is not as it must be.
        """
        raise NotImplementedError

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Drafting | None":
        """Reads `fields` back, None where another drafting wrote them."""
        raise NotImplementedError

    def fields(self) -> dict[str, Any]:
        """Returns its fields of a row, JSON-ready."""
        return {}

    @property
    def over(self) -> str:
        """What tables call the drafting, behind "over"; empty for the pair's drafter alone."""
        return ""

    @property
    def choices(self) -> list[str]:
        """What is chosen of it, a text each."""
        return []

    @property
    def heads(self) -> list[learned_head.Reference]:
        """The heads of learned rules in it."""
        return []

    @property
    def program(self) -> tuple:
        """What settings must share to be drafted by one compiled program."""
        return ()

    @property
    def law(self) -> "Drafting":
        """The drafting without what does not touch the law of answers."""
        return self

    def trouble(self, pair: Pair) -> str | None:
        """Returns what a pair lacks for it, a sentence's end; None where it lacks nothing."""
        return None

    def longest(self) -> int:
        """Returns the most tokens that it writes in one go, beside a block."""
        return 0

    def drafter(self, pair: Pair) -> tuple[decode.Drafter, Any]:
        """Returns the drafter, and its parameters."""
        raise NotImplementedError

    def rows(self, settings: Sequence["Setting"]) -> Any:
        """Returns what the drafter asks of its rows, see `decode.Rows`; settings of one program."""
        return None

    def scored(self, counts: Mapping[str, float], blocks: float, rereads: bool) -> dict[str, float]:
        """Returns the positions that each of its models scored after the prefill, by role.

        Args:
          counts: of the models' passes, see `decode.Stats.by_name`.
          blocks: how many blocks were drafted.
          rereads: whether the first pass of a block reads two tokens, for want of a bonus position.
        """
        raise NotImplementedError


def model_name(given: Mapping[str, Any], field: str, default: str) -> str:
    """Returns the name of a model that drafts, which a field of a setting gives."""
    found = default if given.get(field) is None else given[field]
    if not isinstance(found, str):
        raise UserError(f"{field}={found!r} must be the name of a model of the pair")
    if found == "expert":
        raise UserError(f"{field}=expert drafts nothing, it scores drafts; name another model")
    return found


@dataclasses.dataclass(frozen=True)
class ByModel(Drafting):
    """By a model of the pair, its "drafter" where a setting says nothing else.

    Attributes:
      role: of the model.
    """

    role: str = "drafter"

    name = "model"

    @property
    def has_q(self) -> bool:
        """References are scored by the pair's drafter alone."""
        return self == ByModel()

    @classmethod
    def read(cls, given, rule):
        """Takes every setting that no other drafting took, which may name a model of the pair."""
        return cls(model_name(given, "drafter", "drafter")), {"drafter"}

    @classmethod
    def of_row(cls, row):
        """Takes every row that no other drafting wrote."""
        named = row.get("drafter")
        return cls() if named is None else cls(named)

    def fields(self):
        """Returns the model's role, where that is another than the drafter."""
        return {} if self == ByModel() else {"drafter": self.role}

    @property
    def over(self):
        """The model's role, where that is another than the drafter."""
        return "" if self == ByModel() else self.role

    @property
    def program(self):
        """Each model has a program of its own."""
        return (self.role,)

    def trouble(self, pair):
        """Returns what a pair without the model lacks."""
        if self.role in pair.models:
            return None
        if self == ByModel():
            return (
                f"needs a model that drafts and pair {pair.name} is an expert alone; give the pair "
                "one, {drafter: ..., expert: ...}, or let the setting draft without: drafter=lookup"
            )
        known = (*(role for role in pair.roles if role != "expert"), *pair.named_drafters, "lookup")
        return f"names a drafter that pair {pair.name} has not; choose one of: {', '.join(known)}"

    def drafter(self, pair):
        """Returns the model as a drafter."""
        return decode.ModelDrafter(pair.models[self.role]), pair.params[self.role]

    def scored(self, counts, blocks, rereads):
        """Returns what the model scored."""
        return {self.role: counts["drafter_calls"] + blocks * rereads}


class Method:
    """A way of decoding: what it takes, how it runs, what it counts, what it costs.

    One object each; nobody else asks for a method's name.

    Attributes:
      name: as configs and rows write it.
      alone: the role of the model that decodes by itself, None where several work together.
      in_blocks: whether the expert scores blocks of drafts: then there are a draft length, a
        verifier, and tokens per expert call.
      has_rule: whether a deferral rule decides, which can be asked on reference answers too.
      in_order: whether a token that was written stays: then there is a first one.
      measured: whether it decodes at all.
    """

    name: str
    alone: str | None = None
    in_blocks = False
    has_rule = False
    in_order = True
    measured = True

    def __repr__(self) -> str:
        return self.name

    def read(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Returns fields of `Setting` beside temperature and seed, and the fields that it knows.

        Raises:
          UserError: a field is missing or outside its domain.
        """
        raise NotImplementedError

    def label(self, setting: "Setting") -> str:
        """Returns its name in tables: what stays when its knobs are chosen."""
        return self.name

    def program(self, setting: "Setting") -> tuple:
        """Returns what settings must share to run as one compiled program, limits aside."""
        return ()

    def trouble(self, setting: "Setting", pair: Pair) -> str | None:
        """Returns what a pair lacks for a setting, a sentence's end; None where nothing."""
        return ByModel().trouble(pair)

    def decoder(self, room: Room, setting: "Setting") -> tuple[decode.Decoder, Any] | None:
        """Returns the loop of blocks that it is, and the loop's parameters; None where it is none.

        Args:
          room: where.
          setting: any one of a program.
        """
        return None

    def asked(self, rows: Rows) -> Rows:
        """Returns rows as its loop of blocks takes them."""
        return rows

    def booked(self, output: Any) -> Any:
        """Returns what its loop of blocks gave, with counts booked as the method's own."""
        return output

    def prepare(
        self, room: Room, settings: Sequence["Setting"], rules: tuple[Rule, ...], rows: Rows
    ) -> Callable[[], Any]:
        """Returns a function that decodes a batch; a method without a `decoder` has its own.

        Args:
          room: where.
          settings: per row; of one program.
          rules: those that the rows index, knobs [B].
          rows: the batch.
        """
        decoder, params = self.decoder(room, settings[0])
        return lambda: self.booked(room.run(decoder, params, rules, self.asked(rows)))

    def scored(self, setting: "Setting", counts: Mapping[str, float]) -> dict[str, float]:
        """Returns the positions that each model scored after the prefill, by role.

        Args:
          setting: how it was decoded.
          counts: see `decode.Stats.by_name`; a model without passes may lack.
        """
        return {role: counts.get(f"{role}_calls", 0.0) for role in ("drafter", "expert")}

    def costs(self) -> tuple["Method", ...]:
        """Returns the methods whose seconds its own are at most: two models cost both."""
        return (self,)

    def law(self, setting: "Setting") -> "Setting":
        """Returns the setting without what does not touch the law of answers.

        At temperature 0 that is truncations: both distributions have one token each.
        """
        if setting.temperature > 0:
            return setting
        return dataclasses.replace(setting, drafter_truncation=(), expert_truncation=())


@dataclasses.dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    Attributes:
      method: one of `methods.METHODS`.
      rule: the rule's registry name; None where the method has none.
      knobs: the rule's knobs, or the threshold of a sequence cascade, by name.
      draft_length: N where blocks are drafted, else None.
      verifier: where blocks are, else None.
      temperature: 0 for greedy.
      drafter_truncation: limits on the drafter by name, none for none.
      expert_truncation: the same for the expert.
      seed: of the random draws.
      drafting: how blocks are drafted.
    """

    method: Method
    rule: str | None = None
    knobs: Pairs = ()
    draft_length: int | None = None
    verifier: str | None = None
    temperature: float = 0.0
    drafter_truncation: Pairs = ()
    expert_truncation: Pairs = ()
    seed: int = 0
    drafting: Drafting = ByModel()

    def fields(self) -> dict[str, Any]:
        """Returns the JSON-ready fields; `reading.from_fields` reads them back."""
        own = {
            name: dict(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name != "drafting"
        }
        return {**own, "method": self.method.name, **self.drafting.fields()}

    @property
    def label(self) -> str:
        """The method's name in tables: what stays when its knobs are chosen."""
        over = f" over {self.drafting.over}" if self.drafting.over else ""
        limits = [f"drafter {k}" for k, _ in self.drafter_truncation]
        limits += [f"expert {k}" for k, _ in self.expert_truncation]
        return ", ".join([self.method.label(self) + over, *limits])

    @property
    def choices(self) -> str:
        """What is chosen within a method, as text: knobs, truncations, draft length, verifier."""
        parts = [f"{k}={v:g}" for k, v in self.knobs]
        parts += [f"{k}={v:g}" for k, v in self.drafter_truncation + self.expert_truncation]
        if self.draft_length is not None:
            parts.append(f"N={self.draft_length}")
        parts += self.drafting.choices
        if self.verifier is not None:
            parts.append(self.verifier)
        return " ".join(parts)

    def __str__(self) -> str:
        tail = [f"T={self.temperature:g}"] + ([f"seed={self.seed}"] if self.seed else [])
        return " ".join(part for part in (self.label, self.choices, *tail) if part)

    @property
    def heads(self) -> list[learned_head.Reference]:
        """The heads of learned rules that decide in it."""
        return [value for name, value in self.knobs if name == "head"] + self.drafting.heads


def pairs_of(mapping: Mapping[str, float | str]) -> Pairs:
    """Returns named values as a setting keeps them: sorted, a text being a head's reference."""
    return tuple(
        (key, learned_head.Reference(value) if isinstance(value, str) else value)
        for key, value in sorted(mapping.items())
    )


def digest(value: Any) -> str:
    """Returns 16 hex digits that identify a JSON-ready value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
