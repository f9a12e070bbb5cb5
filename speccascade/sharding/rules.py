"""From logical axis names to mesh axes: one small table per model.

Models name the axes of their parameters, caches and activations; a table says where each name
lies:

  batch     rows of a batch
  vocab     token ids: of the embedding and the head, of logits and distributions
  embed     the residual stream, as an axis of weights alone
  mlp       the inner width of feed-forward layers
  heads     query heads, and key-value heads as they are cached
  kv_heads  key-value heads as an axis of weights
"""

import dataclasses

from jax.sharding import PartitionSpec

from speccascade.errors import UserError

Axis = str | tuple[str, ...] | None
"""Where a logical axis lies: one mesh axis, several, or none."""


def names_of(axis: Axis) -> tuple[str, ...]:
    """Returns the mesh axes that an axis lies on."""
    return (axis,) if isinstance(axis, str) else tuple(axis or ())


@dataclasses.dataclass(frozen=True)
class Rules:
    """The mesh axis of each logical axis; None, or an axis that the mesh lacks, replicates it."""

    batch: Axis = "data"
    vocab: str | None = "model"
    embed: str | None = "fsdp"
    mlp: str | None = "model"
    heads: str | None = "model"
    kv_heads: str | None = "model"

    def spec(self, names: PartitionSpec) -> PartitionSpec:
        """Returns where an array lies whose axes have these logical names (None for nowhere).

        Raises:
          UserError: a name is unknown, or two axes of the array would lie on one mesh axis.
        """
        known = [field.name for field in dataclasses.fields(self)]
        if unknown := [name for name in names if name is not None and name not in known]:
            raise UserError(f"no rule for logical axis {unknown[0]!r}; known: {', '.join(known)}")
        axes = [None if name is None else getattr(self, name) for name in names]
        taken: dict[str, str] = {}
        for name, axis in zip(names, axes, strict=True):
            for one in names_of(axis):
                if one in taken:
                    raise UserError(
                        f"logical axes {taken[one]} and {name} of one array both lie on mesh axis "
                        f"{one!r}; give one of them another mesh axis or None"
                    )
                taken[one] = name
        return PartitionSpec(*axes)


SHARDED = Rules()
"""Tensor parallel over `model`: the usual place of an expert."""

REPLICATED = Rules(vocab=None, embed=None, mlp=None, heads=None, kv_heads=None)
"""Every device computes the whole model for its rows: a small drafter without communication."""

TRAINED = Rules(batch=("data", "fsdp"))
"""In training: rows spread over `fsdp` too, so that its devices share one copy of the weights and
each gathers a layer's when it comes to it."""
