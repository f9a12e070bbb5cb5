"""Workdirs of drafters whose embedding is their expert's: it is not stored twice.

shared.json       which expert the drafter belongs to: a fingerprint of its embedding, where it was
                  found, the most tokens that it was made for
"""

import hashlib
import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from speccascade.errors import UserError
from speccascade.models.interface import Params
from speccascade.models.shrink import SHARED
from speccascade.training import checkpoints

_FILE = "shared.json"
_ROWS = 256


def record(workdir: str, expert: Params, source: str, context_length: int) -> None:
    """Notes that the drafter in `workdir` takes its embedding from an expert.

    Args:
      workdir: the drafter's.
      expert: the expert's parameters.
      source: where the expert was found.
      context_length: the most tokens that it was made for.
    """
    value = {
        "expert": source,
        "embedding": _fingerprint(expert[SHARED]),
        "context_length": context_length,
    }
    checkpoints.write_json(os.path.join(workdir, _FILE), value)


def read(workdir: str) -> dict[str, Any] | None:
    """Returns what `record` noted, None of a model that is complete by itself."""
    if not (epath.Path(workdir) / _FILE).exists():
        return None
    return checkpoints.read_json(os.path.join(workdir, _FILE))


def embedding(workdir: str, noted: dict[str, Any], expert: Params | None) -> Any:
    """Returns the embedding of a drafter.

    Args:
      workdir: the drafter's, for messages.
      noted: from `read`.
      expert: the parameters of the expert that it will decode with, None where it stands alone.

    Raises:
      UserError: it is not the expert that it was made for.
    """
    if expert is None:
        raise UserError(
            f"{workdir} is a drafter that shares the embedding of {noted['expert']}; it decodes "
            "only as the drafter of that expert"
        )
    if _fingerprint(expert[SHARED]) != noted["embedding"]:
        raise UserError(
            f"{workdir} is a drafter made of {noted['expert']} and shares its embedding; the "
            "expert of this pair has another one"
        )
    return expert[SHARED]


def _fingerprint(embedding: Any) -> str:
    """Returns 16 hex digits of some rows, the same in float32 as in bfloat16."""
    rows = np.asarray(jnp.asarray(embedding[:_ROWS], jnp.bfloat16))
    return hashlib.sha256(rows.tobytes()).hexdigest()[:16]
