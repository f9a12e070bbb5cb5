"""A drafter and an expert over one vocabulary."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from speccascade import models
from speccascade.errors import UserError
from speccascade.models.interface import Model, Params
from speccascade.pairs.lengths import Lengths
from speccascade.parameter_files import flat
from speccascade.prompt import Fitted, fit
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
      context_length: the most tokens that the models were made for: of a decoder-only pair prompt
        and answer together, of an encoder-decoder either of them by itself; None for no limit.
      chat: whether a prompt is a user's message, to be put into the tokenizer's chat template.
      layout: how the parameters lie on a mesh; None for one device.
      middle: a model between the two, with which the drafter may draft; None for none.
      prompt_length: the most tokens of a prompt, where that is another limit; None where not.
      answer_length: the most tokens of an answer, likewise.
    """

    name: str
    drafter: Model
    expert: Model
    params: dict[str, Params]
    tokenizer: Tokenizer
    context_length: int | None
    chat: bool = False
    layout: Layout | None = None
    middle: Model | None = None
    prompt_length: int | None = None
    answer_length: int | None = None

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
        rooms = [answer] * len(prompts) if isinstance(answer, int) else answer
        lengths = self.lengths
        return fit(self.encode_prompts, prompts, [lengths.for_prompt(room) for room in rooms])

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
