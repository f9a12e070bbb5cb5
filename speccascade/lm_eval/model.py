"""The library's model class; importing this registers it as "speccascade"."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from speccascade.lm_eval.backend import Backend

NAME = "speccascade"


@register_model(NAME)
class SpecCascadeLM(LM):
    """Any pair and setting, `--model_args pair=...,rule=...`; see `arguments.py`."""

    def __init__(self, **given: Any):
        super().__init__()
        self._backend = Backend.load(given)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the answer to each request's context."""
        del disable_tqdm
        found = self._backend.generate([request.args for request in requests])
        return self._kept("generate_until", requests, found)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Returns each continuation's log-likelihood under the target, and whether it is greedy."""
        del disable_tqdm
        found = self._backend.loglikelihood([request.args for request in requests])
        return self._kept("loglikelihood", requests, found)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Returns each text's log-likelihood under the target."""
        del disable_tqdm
        found = self._backend.loglikelihood_rolling([request.args[0] for request in requests])
        return self._kept("loglikelihood_rolling", requests, found)

    def _kept(self, kind: str, requests: Sequence[Any], found: list) -> list:
        """Returns what was found for each request, once the library's cache has it, too."""
        for request, value in zip(requests, found, strict=True):
            self.cache_hook.add_partial(kind, request.args, value)
        return found

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns a conversation as a text."""
        return self._backend.chat(chat_history, add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Returns the tokenizer's chat template, None where none is asked for."""
        return self._backend.template if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Tells tokenizers apart in the library's cache of requests."""
        return self._backend.pair.tokenizer.content_hash

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the library writes beside its results."""
        own = self._backend
        return {"speccascade_pair": own.pair.hash, "speccascade_setting": str(own.given.setting)}
