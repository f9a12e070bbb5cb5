"""What `--model_args` says: a pair, a setting, and how many answers are decoded at a time.

    pair=shipped:gsm_symbolic,rule=token_v3,alpha=0.3,draft_length=4
    pair.drafter=DIR,pair.expert=DIR,pair.dtype=bfloat16,method=autoregressive_expert
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from speccascade.errors import UserError
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting
from speccascade.inputs import values

BATCH_SIZE = 32  # where the library is told "auto"
MOST_NEW_TOKENS = 256  # of a task that does not say, as with the library's other models
_PAIR = "pair"
_OWN = ("batch_size", "max_batch_size", "device", "max_gen_toks")


class Arguments(NamedTuple):
    """What was given.

    Attributes:
      source: of the pair, as `pairs.load` takes it.
      setting: how it decodes.
      temperature: that of the setting where one was given, else None.
      batch_size: answers decoded at a time.
      max_new_tokens: the most tokens of an answer whose task does not say.
    """

    source: str | dict[str, Any]
    setting: Setting
    temperature: float | None
    batch_size: int
    max_new_tokens: int


def read(given: Mapping[str, Any]) -> Arguments:
    """Reads arguments as the library hands them over, those of its own flags among them.

    Its `device` is not read: it names one for PyTorch, whether a user did or not.

    Raises:
      UserError: one is missing, unknown or outside its domain.
    """
    parts = {
        name.removeprefix(f"{_PAIR}."): value
        for name, value in given.items()
        if name.startswith(f"{_PAIR}.")
    }
    if parts and _PAIR in given:
        raise UserError("model_args has pair and pair.*; give one pair, or its parts")
    source = parts or given.get(_PAIR)
    if not source:
        raise UserError(
            "model_args has no pair; give pair=shipped:NAME, pair=DIRECTORY, or two models, "
            "pair.drafter=SOURCE,pair.expert=SOURCE"
        )
    own = {k: v for k, v in given.items() if k not in (_PAIR, *_OWN) and not k.startswith("pair.")}
    try:
        chosen = setting(own)
    except UserError as error:
        raise UserError(f"model_args: {error}") from None
    most = given.get("max_gen_toks", MOST_NEW_TOKENS)
    return Arguments(
        source,
        chosen,
        chosen.temperature if "temperature" in own else None,
        _batch_size(given.get("batch_size"), given.get("max_batch_size")),
        values.whole("max_gen_toks", most, 1),
    )


def _batch_size(given: Any, most: Any) -> int:
    """Returns how many answers are decoded at a time; "auto" and "auto:4" leave it to us."""
    if isinstance(given, str) and given.partition(":")[0] == "auto":
        given = BATCH_SIZE
    elif isinstance(given, str) and given.isdecimal():
        given = int(given)
    size = values.whole("batch_size", BATCH_SIZE if given is None else given, 1)
    return size if most is None else min(size, values.whole("max_batch_size", most, 1))
