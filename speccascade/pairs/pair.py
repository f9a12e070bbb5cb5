"""A drafter and an expert over one vocabulary."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.interface import Model, Params
from speccascade.parameter_files import flat
from speccascade.sharding import Layout, hosts
from speccascade.text import Tokenizer

ROLES = ("drafter", "expert")
MIDDLE = "middle"  # a third role, which a pair may have
ONE_DEVICE = "a pair with a middle model decodes on one device; leave out the mesh or the middle"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A drafter and an expert over one vocabulary.

    Attributes:
      name: for people.
      drafter: the drafter's model.
      expert: the expert's model.
      params: `{"drafter": ..., "expert": ...}`, in the dtype in which each model computes; beside
        them "middle", where there is one.
      tokenizer: of both.
      context_length: the most tokens, prompt and answer together, that the models were trained on.
      chat: whether a prompt is a user's message, to be put into the tokenizer's chat template.
      layout: how the parameters lie on a mesh; None for one device.
      middle: a model between the two, with which the drafter may draft; None for none.
    """

    name: str
    drafter: Model
    expert: Model
    params: dict[str, Params]
    tokenizer: Tokenizer
    context_length: int
    chat: bool = False
    layout: Layout | None = None
    middle: Model | None = None

    def __post_init__(self):
        if self.chat and self.tokenizer.settings.template is None:
            raise UserError(f"pair {self.name} has no chat template; leave out chat")
        if len({type(getattr(self, role)) for role in self.roles}) > 1:
            # their positions begin elsewhere
            raise UserError(
                f"pair {self.name}: an encoder-decoder and a decoder-only model cannot decode "
                "together; give models of one family"
            )
        for role in self.roles:
            if getattr(self, role).vocab_size != self.tokenizer.vocab_size:
                raise UserError(
                    f"pair {self.name}: the {role} has {getattr(self, role).vocab_size} token ids, "
                    f"the tokenizer {self.tokenizer.vocab_size}; all must share one vocabulary"
                )

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its models."""
        return ROLES if self.middle is None else (*ROLES, MIDDLE)

    def encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Returns the ids that the models read of each prompt."""
        return self.tokenizer.encode_prompts(prompts, chat=self.chat)

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
        if self.middle is not None:
            raise UserError(ONE_DEVICE)
        models_of = {role: getattr(self, role) for role in ROLES}
        where = {role: layout.of(role, model).params(model) for role, model in models_of.items()}
        return dataclasses.replace(self, params=hosts.put(self.params, where), layout=layout)

    @property
    def hash(self) -> str:
        """16 hex digits of the models' descriptions and parameters."""
        digest = hashlib.sha256()
        for role in self.roles:
            description = models.describe(getattr(self, role))
            digest.update(json.dumps(description, sort_keys=True).encode())
            for key, leaf in sorted(flat(self.params[role]).items()):
                digest.update(key.encode())
                for piece in hosts.pieces(leaf):
                    digest.update(piece.tobytes())
        return digest.hexdigest()[:16]
