"""The library in two calls: `load_pair` and `generate_text`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from speccascade import decode
from speccascade.errors import UserError
from speccascade.evaluate import metrics
from speccascade.evaluate.decoding import Engine
from speccascade.evaluate.settings import setting
from speccascade.pairs import Pair
from speccascade.pairs import load as load_pair

__all__ = ["Completion", "generate_text", "load_pair"]


@dataclasses.dataclass(frozen=True)
class Completion:
    """An answer.

    Attributes:
      text: without the prompt, up to the first stop string.
      tokens: its ids, an end-of-sequence included.
      statistics: counts and rates of this answer; None where the method has no such thing.
    """

    text: str
    tokens: list[int]
    statistics: dict[str, Any]


def generate_text(
    pair: Pair,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    stop_strings: Sequence[str] = (),
    **how: Any,
) -> list[Completion]:
    """Answers prompts.

    Args:
      pair: from `load_pair`.
      prompts: decoded together as one batch.
      max_new_tokens: the most tokens of an answer.
      stop_strings: an answer ends before the first of these.
      **how: a setting as configs write it: `rule="token_v3", alpha=0.3, draft_length=5`, and where
        wanted `method`, `verifier`, `temperature`, `seed`, `expert_top_p`, ...

    Raises:
      UserError: a prompt is empty or too long, or a value is outside its domain.
    """
    if not prompts:
        raise UserError("no prompt was given; give at least one")
    chosen = setting(how)
    ids = pair.encode_prompts(list(prompts))
    engine = Engine.build(pair, ids, max_new_tokens, stop_strings)
    requests = [engine.request(prompt, i, f"prompt {i}") for i, prompt in enumerate(ids)]
    output = engine.prepare([chosen] * len(requests), requests, [chosen])()
    if np.any(output.invalid):
        raise UserError("the models' logits are not finite; look at the checkpoints and the dtype")
    lengths = np.asarray(output.num_tokens)
    tokens = [row[:n].tolist() for row, n in zip(np.asarray(output.tokens), lengths, strict=True)]
    stats = {name: np.asarray(values) for name, values in output.stats._asdict().items()}
    return [
        Completion(
            text=engine.text(own, ids[i]),
            tokens=own,
            statistics=metrics.rates(
                {name: float(stats[name][i]) for name in decode.Stats._fields},
                chosen.method,
                chosen.verifier,
            ),
        )
        for i, own in enumerate(tokens)
    ]
