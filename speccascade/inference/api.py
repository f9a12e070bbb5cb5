"""The library in two calls: `load_pair` and `generate_text`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from speccascade.errors import UserError
from speccascade.inference import metrics
from speccascade.inference.engine import Engine
from speccascade.inference.reading import setting
from speccascade.inputs import plain_text
from speccascade.pairs import Pair
from speccascade.pairs import load as load_pair

__all__ = ["Completion", "generate_text", "load_pair"]


@dataclasses.dataclass(frozen=True)
class Completion:
    """An answer.

    Attributes:
      text: without the prompt, up to the first stop string.
      tokens: its ids, an end-of-sequence included.
      statistics: counts and rates of this answer, None where the method has no such thing;
        `finished`, whether it came to its end, rather than running out of room; `prompt_cut`, how
        many tokens its prompt has less than it had.
    """

    text: str
    tokens: list[int]
    statistics: dict[str, Any]


def generate_text(
    pair: Pair,
    prompts: str | Sequence[str],
    *,
    max_new_tokens: int = 64,
    stop_strings: str | Sequence[str] = (),
    **how: Any,
) -> list[Completion]:
    """Answers prompts.

    Args:
      pair: from `load_pair`.
      prompts: decoded together as one batch; one text is one prompt. A `text.prompt.Prompt` that is
        too long is cut.
      max_new_tokens: the most tokens of an answer.
      stop_strings: an answer ends before the first of these; one text is one stop string.
      **how: a setting as configs write it: `rule="token_v3", alpha=0.3, draft_length=5`, and where
        wanted `method`, `verifier`, `temperature`, `seed`, `expert_top_p`, ...

    Raises:
      UserError: a prompt is no text, empty or too long, or a value is outside its domain.
    """
    prompts = plain_text.several(prompts, "prompts")
    if not prompts:
        raise UserError("no prompt was given; give at least one")
    chosen = setting(how)
    fitted = pair.fit_prompts(prompts, max_new_tokens)
    engine = Engine.build(pair, [prompt.ids for prompt in fitted], max_new_tokens, stop_strings)
    requests = [
        engine.request(prompt.ids, i, f"prompt {i}", prompt.cut) for i, prompt in enumerate(fitted)
    ]
    output = engine.prepare([chosen] * len(requests), requests, [chosen])()
    if np.any(output.invalid):
        raise UserError("the models' logits are not finite; look at the checkpoints and the dtype")
    lengths, finished = np.asarray(output.num_tokens), np.asarray(output.finished)
    tokens = [row[:n].tolist() for row, n in zip(np.asarray(output.tokens), lengths, strict=True)]
    stats = {name: np.asarray(values) for name, values in output.stats.by_name().items()}
    return [
        Completion(
            text=engine.text(own, requests[i].prompt),
            tokens=own,
            statistics={
                **metrics.rates({name: float(values[i]) for name, values in stats.items()}, chosen),
                "finished": bool(finished[i]),
                "prompt_cut": requests[i].cut,
            },
        )
        for i, own in enumerate(tokens)
    ]
