"""The library in two calls: `load_pair` and `generate_text`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from speccascade.errors import UserError
from speccascade.inference import metrics, stream
from speccascade.inference.engine import Engine, Request
from speccascade.inference.reading import setting
from speccascade.inference.setting import Setting
from speccascade.inputs import plain_text, values
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
    batch_size: int = 32,
    **how: Any,
) -> list[Completion]:
    """Answers prompts.

    Args:
      pair: from `load_pair`.
      prompts: one text is one prompt. A `text.prompt.Prompt` that is too long is cut.
      max_new_tokens: the most tokens of an answer.
      stop_strings: an answer ends before the first of these; one text is one stop string.
      batch_size: the most prompts that are decoded at a time, which memory must hold. As one is
        done, the next takes its place; no answer depends on that.
      **how: a setting as configs write it: `rule="token_v3", alpha=0.3, draft_length=5`, and where
        wanted `method`, `verifier`, `temperature`, `seed`, `expert_top_p`, ...

    Raises:
      UserError: a prompt is no text, empty or too long, or a value is outside its domain.
    """
    prompts = plain_text.several(prompts, "prompts")
    if not prompts:
        raise UserError("no prompt was given; give at least one")
    chosen = setting(how, pair.named_drafters)
    fitted = pair.fit_prompts(prompts, max_new_tokens)
    values.whole("batch_size", batch_size, 1)
    engine = Engine.build(pair, [prompt.ids for prompt in fitted], max_new_tokens, stop_strings)
    requests = [
        engine.request(prompt.ids, i, f"prompt {i}", prompt.cut) for i, prompt in enumerate(fitted)
    ]
    # Few are one batch of their own, without rows to spare.
    slots = min(batch_size, len(requests))
    run = stream.in_batches if slots == len(requests) else stream.answers
    found: dict[int, Completion] = {}
    for part in run(engine, [chosen] * len(requests), requests, [chosen], slots):
        for index, output, _ in part:
            if output.invalid:
                raise UserError(
                    "the models' logits are not finite; look at the checkpoints and the dtype"
                )
            found[index] = _completion(engine, requests[index], chosen, output)
    return [found[index] for index in range(len(requests))]


def _completion(engine: Engine, request: Request, setting: Setting, output) -> Completion:
    tokens = output.tokens[: output.num_tokens].tolist()
    return Completion(
        text=engine.text(tokens, request.prompt),
        tokens=tokens,
        statistics={
            **metrics.rates(metrics.counts(output, setting), setting),
            "finished": bool(output.finished),
            "prompt_cut": request.cut,
        },
    )
