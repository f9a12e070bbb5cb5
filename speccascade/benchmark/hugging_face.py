"""Greedy decoding by Hugging Face's `transformers`, with the weights of a pair of ours.

The one file that imports torch: requirements-peers.txt has both.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch
import transformers

from speccascade.benchmark import synthetic
from speccascade.benchmark.as_hugging_face import config_of, tensors_of
from speccascade.benchmark.peer import Method
from speccascade.decode.stopping import STOP
from speccascade.models.interface import Model, Params
from speccascade.models.quantisation import widened

VERSIONS = f"transformers {transformers.__version__}, torch {torch.__version__}"


class HuggingFace:
    """A pair as that library's models; batches are of one prompt, what it can assist.

    Attributes:
      models: by role.
    """

    def __init__(
        self, models: Mapping[str, Model], params: Mapping[str, Params], stop_table: np.ndarray
    ):
        """Builds both models.

        Args:
          models: by role.
          params: by role; the memory is shared.
          stop_table: int32 [S, V], where answers end, see `decode.stop_table`.

        Raises:
          UserError: `transformers` has no such model.
        """
        threads = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        torch.set_num_threads(len(threads) or os.cpu_count() or 1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.models = {role: built(models[role], params[role]) for role in ("drafter", "expert")}
        self._agreement = {"drafter": 1.0, "expert": 1.0}
        for role, model in models.items():
            if isinstance(model, synthetic.Agreeing):
                self.models[role].register_forward_hook(self._steer(role), with_kwargs=True)
        self._table = stop_table
        self._eos = np.flatnonzero((stop_table == STOP).all(0)).tolist()
        others = stop_table.copy()
        others[:, self._eos] = 0
        self._strings = bool((others == STOP).any())

    def decode(
        self, prompt: Sequence[int], most: int, method: Method, agreement: float | None
    ) -> list[int]:
        """Returns the answer to a prompt, its end-of-sequence included.

        Args:
          prompt: token ids.
          most: the most tokens of the answer.
          method: how.
          agreement: of a synthetic drafter; None for another.
        """
        self._agreement["drafter"] = 1.0 if agreement is None else agreement
        given = torch.tensor([list(prompt)])
        options: dict[str, Any] = {"max_new_tokens": most, "eos_token_id": self._eos or None}
        more: dict[str, Any] = {}
        if method.by == "lookup":
            options["prompt_lookup_num_tokens"] = method.draft_length
            options["max_matching_ngram_size"] = method.max_ngram
        if method.by == "drafter":
            # The drafter's own config decides how much it drafts: always N, whatever it thinks.
            more["assistant_model"] = self.models["drafter"]
            self.models["drafter"].generation_config = transformers.GenerationConfig(
                num_assistant_tokens=method.draft_length,
                num_assistant_tokens_schedule="constant",
                assistant_confidence_threshold=0.0,
            )
        if self._strings:
            stops = _Stops(self._table, len(prompt))
            more["stopping_criteria"] = transformers.StoppingCriteriaList([stops])
        config = transformers.GenerationConfig(do_sample=False, pad_token_id=0, **options)
        with torch.inference_mode():
            found = self.models["expert"].generate(
                given, attention_mask=torch.ones_like(given), generation_config=config, **more
            )
        answer = found[0, len(prompt) :].tolist()
        return answer[: _end(answer, self._table)]

    def _steer(self, role: str):
        """Returns what does to logits `[1, K, V]` what `synthetic.Agreeing` does to ours."""

        def hook(module, given, keywords, output):
            del module, given
            logits, tokens = output.logits, keywords["input_ids"][0].tolist()
            end, size = output.past_key_values.get_seq_length(), logits.shape[1]
            for k, token in enumerate(tokens[len(tokens) - size :]):
                choice, weight = synthetic.next_token(
                    token, end - size + k, self._agreement[role], logits.shape[-1]
                )
                logits[0, k, choice] += weight

        return hook


def built(model: Model, params: Params) -> transformers.PreTrainedModel:
    """Returns a model of ours as theirs, in the dtype in which it computes, int8 weights too.

    Raises:
      UserError: `transformers` has no such model.
    """
    if isinstance(model, synthetic.Agreeing):
        model, params = model.model, params["model"]
    model, params = widened(model, params)
    config, plan = config_of(model)
    (name,) = config.pop("architectures")
    kind = getattr(transformers, name)
    dtype = getattr(torch, model.config.dtype)
    tensors = {
        name: torch.from_dlpack(jax.device_put(leaf, jax.devices("cpu")[0])).to(dtype)
        for name, leaf in tensors_of(params, plan).items()
    }
    made = kind.from_pretrained(
        None, config=kind.config_class(**config), state_dict=tensors, dtype=dtype
    )
    return made.eval()


def _end(answer: Sequence[int], table: np.ndarray) -> int:
    """Returns the length of an answer up to the token that ends it, that included."""
    state = 0
    for i, token in enumerate(answer):
        state = table[state, token]
        if state == STOP:
            return i + 1
    return len(answer) + 1


class _Stops(transformers.StoppingCriteria):
    """Ends an answer as our stop strings do."""

    def __init__(self, table: np.ndarray, prompt_length: int):
        self._table, self._begin = table, prompt_length

    def __call__(self, input_ids, scores, **keywords):
        answer = input_ids[0, self._begin :].tolist()
        return torch.tensor([_end(answer, self._table) <= len(answer)])
