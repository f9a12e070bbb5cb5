"""The largest batch that fits into a device's memory, and what else would."""

import dataclasses
import math
from typing import cast

import jax

from speccascade import decode
from speccascade.errors import UserError
from speccascade.models import memory
from speccascade.plan import topology
from speccascade.plan.subject import Inputs, Subject
from speccascade.plan.topology import Topology

# What compiled programs of the paper's pairs were seen to need beside their arguments: this share
# of the memory, and for each row of a device so many float32 arrays of its block's logits or, while
# prompts are read, of the attention scores of a chunk, whichever is more.
_FIXED_SHARE = 0.02
_LOGITS_ARRAYS = 6
_SCORES_ARRAYS = 3.5


@dataclasses.dataclass(frozen=True)
class Parts:
    """Bytes that lie on one device, by arithmetic.

    Attributes:
      weights: of each model, by role.
      caches: of each model, by role.
      state: rows, tokens and counts.
      temporaries: an estimate.
      rows: rows of the batch that the device holds.
      slots: of the caches' layers, each number once.
    """

    weights: dict[str, int]
    caches: dict[str, int]
    state: int
    temporaries: int
    rows: int
    slots: frozenset[int]

    @property
    def arguments(self) -> int:
        """What the program is given."""
        return sum(self.weights.values()) + sum(self.caches.values()) + self.state

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.temporaries

    def largest_rows(self, chip_bytes: int) -> int:
        """Returns how many rows fit on a device, 0 for none."""
        fixed = sum(self.weights.values()) + self.temporaries_fixed(chip_bytes)
        per_row = (self.total - fixed) / self.rows
        return max(0, math.floor((chip_bytes - fixed) / per_row))

    @staticmethod
    def temporaries_fixed(chip_bytes: int) -> int:
        """Returns the part of the temporaries that does not grow with the batch."""
        return int(_FIXED_SHARE * chip_bytes)


def parts(inputs: Inputs, slice_: Topology) -> Parts:
    """Returns what lies on one device.

    Args:
      inputs: the decode loop's.
      slice_: where.
    """
    state = inputs.state
    caches = {"drafter": memory.size(state.drafter), "expert": memory.size(state.expert)}
    logits = 4 * inputs.device_rows * inputs.device_vocab * (inputs.decoder.draft_length + 1)
    drafter = cast(decode.ModelDrafter, inputs.decoder.drafter)
    models = {"drafter": drafter.model, "expert": inputs.decoder.expert}
    prompt_length = inputs.rows.prompt.shape[1]
    scores = max(
        memory.scores(model, getattr(state, role), prompt_length) for role, model in models.items()
    )
    kept = jax.tree.leaves((state.drafter, state.expert))
    growing = max(_LOGITS_ARRAYS * logits, int(_SCORES_ARRAYS * scores))
    fixed = Parts.temporaries_fixed(slice_.chip.hbm_bytes)
    return Parts(
        weights={role: memory.size(tree) for role, tree in inputs.params.items()},
        caches=caches,
        state=memory.size((inputs.rows, state)) - sum(caches.values()),
        temporaries=fixed + growing,
        rows=inputs.device_rows,
        slots=frozenset(leaf.shape[2] for leaf in kept if leaf.ndim == 4),
    )


def alternatives(subject: Subject, slice_: Topology) -> list[str]:
    """Returns the nearest settings that fit where one does not, by arithmetic; may be none."""
    found = []
    inputs = subject.inputs(slice_)
    hbm = slice_.chip.hbm_bytes
    here = parts(inputs, slice_)
    if rows := here.largest_rows(hbm):
        found.append(f"--batch_size={rows * subject.batch_size // here.rows}")
    if subject.weights != "int8" and _fits(subject.stored_as("int8"), slice_):
        found.append("--weights=int8")
    model = inputs.decoder.layout.ways("model")
    wider = dataclasses.replace(subject, mesh={**subject.mesh, "data": -1, "model": 2 * model})
    more = f"--config.mesh.model={2 * model}"
    if _fits(wider, slice_):
        found.append(more)
    for candidate, flag in ((subject, ""), (wider, f" {more}")):
        if (name := _larger(candidate, slice_)) is not None:
            return [*found, f"--topology={name}{flag}"]
    return found


def _larger(subject: Subject, slice_: Topology) -> str | None:
    """Returns the smallest larger slice of the same chips that fits."""
    name = slice_.name
    while (name := topology.larger(name)) is not None:
        if _fits(subject, topology.describe(name)):
            return name
    return None


def _fits(subject: Subject, slice_: Topology) -> bool:
    try:
        inputs = subject.inputs(slice_)
    except UserError:  # batch or mesh do not divide there
        return False
    return parts(inputs, slice_).total <= slice_.chip.hbm_bytes
