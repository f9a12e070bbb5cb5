"""Fields that a config's sections may leave out, by type: what flags may set beside what is there.

What they are where they are absent stands where they are read.
"""

import difflib
from collections.abc import Collection, Iterable

from speccascade.errors import UserError

_EVERY_TRAINING = {
    "accumulate": int,
    "remat": bool,
    "ema_decay": float,
    "schedule": str,
    "embedding_rate": float,
}
DISTILLATION = _EVERY_TRAINING
"""Of a distillation's `train`."""

TRAINING = {
    **_EVERY_TRAINING,
    "init_from": str,
    "sort_by_length": bool,
    "dropout": float,
    "distill_loss": str,
    "distill_weight": float,
    "lora": dict,
}
"""Of any other `train`."""

PAIR = {
    "drafter": str,
    "middle": str,
    "drafters": object,
    "context_length": int,
    "prompt_length": int,
    "answer_length": int,
    "chat": bool,
    "date": str,
    "dtype": str,
    "weights": str,
    "drafter_weights": str,
}
"""Of `pair` where it is no text."""

BY_SECTION: dict[str, dict[str, type]] = {
    "": {"mesh": dict, "pair": object, "rounds": dict},
    "train": TRAINING,
    "lora": {"rank": int, "alpha": float, "targets": object},
    "rounds": {"every": int, "num_texts": int, "share": float},
    "drafter": {"encoder_layers": object},
    "pair": PAIR,
    "mesh": {"data": int, "fsdp": int, "model": int, "drafter": str},
    "task": {
        "path": str,
        "metric": str,
        "stop_strings": object,
        "format": str,
        "revision": str,
        "seed": int,
        "shots": int,
        "max_words": int,
    },
    "splits": {"train": int, "validation": int, "test": int},
    "spec_bench": {"most_of_each": int},
}
"""By the name of the section; a model's are those of its family. `object` is any literal."""


def check(section: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises UserError where a section has a field that is none of those that it may have."""
    for field in given:
        if field not in known:
            raise UserError(unknown(section, field, known))


def unknown(section: str, field: str, known: Collection[str]) -> str:
    """Returns what is wrong with a field that a section has not, and the name that was meant."""
    prefix = f"{section}." if section else ""
    like = difflib.get_close_matches(field, sorted(known), 1)
    meant = (
        f"did you mean {prefix}{like[0]}?" if like else "it may have " + ", ".join(sorted(known))
    )
    return f"{section or 'the config'} has no field {field!r}; {meant}"
