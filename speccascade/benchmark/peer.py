"""Another library to compare with: what it has to be told, and what it cannot do."""

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

from speccascade.benchmark.subject import Case
from speccascade.errors import UserError
from speccascade.inference.drafting.lookup import ByLookup
from speccascade.inference.methods import EXPERT
from speccascade.inference.setting import ByModel, Setting

_PACKAGES = ("torch", "transformers")


class Method(NamedTuple):
    """A way in which `transformers` decodes greedily.

    Attributes:
      by: "drafter" for assisted generation, "lookup" for prompt lookup, "" for the expert alone.
      draft_length: N.
      max_ngram: the longest n-gram looked up.
    """

    by: str = ""
    draft_length: int = 0
    max_ngram: int = 0

    def __str__(self) -> str:
        names = {"drafter": "assisted", "lookup": "prompt lookup", "": "greedy"}
        return names[self.by] + (f" N={self.draft_length}" if self.by else "")


def counterpart(setting: Setting) -> Method | None:
    """Returns what does the same as a setting at temperature 0, None where nothing does.

    Speculative decoding is the same greedily whatever its verifier; of rules that may write another
    text than the expert's the other library has none.
    """
    if setting.method is EXPERT:
        return Method()
    if setting.rule != "spec":
        return None
    if isinstance(setting.drafting, ByModel):
        return Method("drafter", setting.draft_length)
    if not isinstance(setting.drafting, ByLookup) or setting.drafting.min_ngram != 1:
        return None
    return Method("lookup", setting.draft_length, setting.drafting.max_ngram)


def check(peer: str, cases: Sequence[Case], profile: str) -> None:
    """Checks what can be checked before a model is loaded.

    Raises:
      UserError: the library is unknown or not installed, or cannot do what is asked.
    """
    if peer != "transformers":
        raise UserError(f"--peer={peer} is unknown; give transformers")
    if profile:
        raise UserError("--peer and --profile are two runs; give one of them")
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(
            f"--peer={peer} needs {' and '.join(missing)}, which this Python lacks; "
            "pip install -r requirements-peers.txt"
        )
    for case in cases:
        if case.setting.temperature > 0:
            raise UserError(
                f"--peer={peer} compares greedy decoding; benchmark.settings has {case.setting}"
            )
        if case.setting.drafter_truncation or case.setting.expert_truncation:
            raise UserError(
                f"--peer={peer} compares models without limits; benchmark.settings has "
                f"{case.setting}"
            )
