"""A drafter and an expert over one vocabulary."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from speccascade import models
from speccascade.errors import UserError
from speccascade.inputs import plain_text, values
from speccascade.models.interface import Model, Params
from speccascade.pairs import kept_hashes
from speccascade.pairs.lengths import Lengths
from speccascade.sharding import Layout, hosts
from speccascade.text import Tokenizer
from speccascade.text.prompt import Fitted, fit
from speccascade.workdir.parameter_files import flat

ROLES = ("drafter", "expert")
USUAL = (*ROLES, "middle")


@dataclasses.dataclass(frozen=True)
class Pair:
    """An expert and what drafts for it, over one vocabulary.

    Attributes:
      name: for people.
      models: by role: "expert", "drafter", which drafts where a setting says nothing else, and
        whatever other drafters, or models of theirs, there are. The expert may be alone.
      params: by role, in the dtype in which each model computes; shapes alone, where a pair was
        loaded without reading it.
      tokenizer: of all.
      context_length: the most tokens that the models were made for: of a decoder-only pair prompt
        and answer together, of an encoder-decoder either of them by itself; None for no limit.
      chat: whether a prompt is a user's message, to be put into the tokenizer's chat template.
      layout: how the parameters lie on a mesh; None for one device.
      prompt_length: the most tokens of a prompt, where that is another limit; None where not.
      answer_length: the most tokens of an answer, likewise.
      named_drafters: drafters that are no model of their own, such as a lookup or a cascade of
        models above, each as the fields of a setting that its name stands for.
    """

    name: str
    models: dict[str, Model]
    params: dict[str, Params]
    tokenizer: Tokenizer
    context_length: int | None
    chat: bool = False
    layout: Layout | None = None
    prompt_length: int | None = None
    answer_length: int | None = None
    named_drafters: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    _origin: str | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.chat and self.tokenizer.settings.template is None:
            raise UserError(f"pair {self.name} has no chat template; leave out chat")
        if len({type(model) for model in self.models.values()}) > 1:
            # their positions begin elsewhere
            raise UserError(
                f"pair {self.name}: an encoder-decoder and a decoder-only model cannot decode "
                "together; give models of one family"
            )
        for role, model in self.models.items():
            if model.vocab_size != self.tokenizer.vocab_size:
                raise UserError(
                    f"pair {self.name}: the {role} has {model.vocab_size} token ids, "
                    f"the tokenizer {self.tokenizer.vocab_size}; all must share one vocabulary"
                )

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its models, sorted."""
        return tuple(sorted(self.models))

    @property
    def expert(self) -> Model:
        """The expert's model."""
        return self.models["expert"]

    @property
    def drafter(self) -> Model | None:
        """The model that drafts where nothing else is said, None where there is none."""
        return self.models.get("drafter")

    @property
    def lengths(self) -> Lengths:
        """The limits of its prompts and answers."""
        own = self.prompt_length, self.answer_length
        return Lengths.of(self.expert, self.context_length, *own)

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Returns the ids that the models read of each prompt, however many."""
        return self.tokenizer.encode_prompts(prompts, chat=self.chat)

    def fit_prompts(self, prompts: Sequence[str], answer: int | Sequence[int]) -> list[Fitted]:
        """Returns what the models read of each prompt, cut where it is too long and may be cut.

        Args:
          prompts: see `prompt.fit`.
          answer: how many tokens of an answer there must be room for, of each or of all.
        """
        prompts = plain_text.several(prompts, "prompts")
        if isinstance(answer, (list, tuple)):
            rooms = answer
        else:
            rooms = [values.whole("max_new_tokens", answer, 1)] * len(prompts)
        lengths = self.lengths
        return fit(self.encode_prompts, prompts, [lengths.for_prompt(room) for room in rooms])

    @property
    def date(self) -> str | None:
        """The day that prompts name as today; None where they name none."""
        return self.tokenizer.settings.date if self.chat else None

    @property
    def answers_begin(self) -> bool:
        """Whether an answer is a text of its own, rather than going on from its prompt."""
        return models.answers_begin(self.expert)

    def encode_answers(self, answers: Sequence[str]) -> list[list[int]]:
        """Returns the ids of answers as the models would write them."""
        return self.tokenizer.encode_answers(answers, self.answers_begin)

    def laid_out(self, layout: Layout | None) -> "Pair":
        """Returns the pair with its parameters where a layout has them; None changes nothing."""
        if layout is None:
            return self
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(self.params)):
            return dataclasses.replace(self, layout=layout)._keeping(self._origin)
        models_of = self.models.items()
        where = {role: layout.of(role, model).params(model) for role, model in models_of}
        placed = dataclasses.replace(self, params=hosts.put(self.params, where), layout=layout)
        return placed._keeping(self._origin)

    def made_of(self, origins: Mapping[str, Any]) -> "Pair":
        """Notes what its parameters were made of, by role, so that its hash is kept.

        A pair made of this one with `dataclasses.replace` is none of that origin.
        """
        described = {f"model {role}": models.describe(self.models[role]) for role in self.roles}
        return self._keeping(kept_hashes.origin({**origins, **described}))

    def _keeping(self, origin: str | None) -> "Pair":
        object.__setattr__(self, "_origin", origin)  # once, by whoever made it
        return self

    @property
    def hash(self) -> str:
        """16 hex digits of the models' descriptions and parameters, and of the names by which
        settings pick other drafters than the usual ones; see `kept_hashes.py`."""
        if kept := self.kept_hash:
            return kept
        found = self._hash_of_bytes()
        if self._origin is not None:
            kept_hashes.keep(self._origin, found)
        return found

    @property
    def kept_hash(self) -> str | None:
        """The hash, where it is known without the parameters' bytes."""
        origin = self._origin
        return None if origin is None else hosts.from_first(lambda: kept_hashes.read(origin))

    def _hash_of_bytes(self) -> str:
        digest = hashlib.sha256()
        for role in self.roles:
            if role not in USUAL:  # rows know a drafter by this name alone
                digest.update(role.encode())
            description = models.describe(self.models[role])
            digest.update(json.dumps(description, sort_keys=True).encode())
            for key, leaf in sorted(flat(self.params[role]).items()):
                digest.update(key.encode())
                for piece in hosts.pieces(leaf):
                    digest.update(piece.tobytes())
        return digest.hexdigest()[:16]
