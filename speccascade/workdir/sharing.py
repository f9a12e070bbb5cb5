"""Workdirs of drafters whose embedding is their expert's: it is not stored twice.

shared.json       which expert the drafter belongs to: where it was found, some numbers of its
                  embedding, the most tokens that it was made for
"""

import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from speccascade.errors import UserError
from speccascade.inputs.fields import Fields
from speccascade.models.interface import Params
from speccascade.models.shrink import SHARED
from speccascade.sharding import hosts
from speccascade.workdir import files

_FILE = "shared.json"
_COUNT = 64


def record(workdir: str, expert: Params, source: str, context_length: int | None) -> None:
    """Notes that the drafter in `workdir` takes its embedding from an expert; all must call it.

    Args:
      workdir: the drafter's.
      expert: the expert's parameters.
      source: where the expert was found.
      context_length: the most tokens that it was made for, None for no limit.
    """
    value = {
        "expert": source,
        "embedding": _sample(expert[SHARED]),
        "context_length": context_length,
    }
    hosts.from_first(lambda: files.write_json(os.path.join(workdir, _FILE), value))


def read(workdir: str) -> dict[str, Any] | None:
    """Returns what `record` noted, None of a model that is complete by itself."""
    path = epath.Path(workdir) / _FILE
    if not path.exists():
        return None
    found = Fields.read(path)
    return {
        "expert": found.text("expert"),
        "embedding": found.numbers("embedding", length=_COUNT),
        "context_length": found.integer("context_length", at_least=1, null=None),
    }


def shared(workdir: str, noted: dict[str, Any], expert: Params | None, vocab_size: int) -> Params:
    """Returns the parameters that a drafter does not have itself.

    Args:
      workdir: the drafter's, for messages.
      noted: from `read`.
      expert: the parameters of the expert that it will decode with, None where it stands alone.
      vocab_size: how many token ids the drafter has; the expert may have more that are padding.

    Raises:
      UserError: it is not the expert that it was made for.
    """
    if expert is None:
        raise UserError(
            f"{workdir} is a drafter that shares the embedding of {noted['expert']}; it decodes "
            "only as the drafter of that expert"
        )
    known, found = np.array(noted["embedding"]), np.array(_sample(expert[SHARED]))
    # The same embedding may be rounded to bfloat16 or int8 now.
    if np.abs(known - found).max() > 0.02 * np.abs(known).max():
        raise UserError(
            f"{workdir} is a drafter made of {noted['expert']} and shares its embedding; the "
            "expert of this pair has another one"
        )
    rows = expert[SHARED]
    return {SHARED: rows if len(rows) == vocab_size else rows[:vocab_size]}


def _sample(embedding: Any) -> list[float]:
    """Returns numbers from all over the first rows."""
    rows = hosts.gather(embedding[np.arange(_COUNT)].astype(jnp.float32))
    return [float(row[i % len(row)]) for i, row in enumerate(rows)]
