"""Behind `scripts/generate.py`: from flags to answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from speccascade import pairs, sharding, tasks
from speccascade.errors import UserError
from speccascade.inference import methods
from speccascade.inference.api import Completion, generate_text
from speccascade.inputs import text_files


def from_flags(
    config: ml_collections.ConfigDict,
    *,
    prompt: str | None,
    prompts_file: str | None,
    knobs: str,
    fields: Mapping[str, Any],
    max_new_tokens: int,
) -> list[Completion]:
    """Answers the prompts with the pair of `config`.

    Args:
      config: its `pair` answers, on its `mesh` if it has one; its `task`, if it has one, says how a
        prompt is made and where an answer stops.
      prompt: one prompt.
      prompts_file: the path of more, one per line.
      knobs: JSON object of further fields of the setting.
      fields: the setting; None for a field that was not given.
      max_new_tokens: the most tokens of an answer.

    Raises:
      UserError: there is no prompt, or something is not as it must be.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given |= text_files.parse_object(knobs, f"--knobs={knobs}")
    if "method" not in given:
        given = {"rule": "spec", **given}
    method = methods.METHODS.get(str(given.get("method", methods.SPECULATIVE)))
    if method is not None and method.in_blocks:
        given.setdefault("draft_length", 5)
    texts = _prompts(prompt, prompts_file)
    stop_strings: Sequence[str] = ()
    if "task" in config:
        task = tasks.make(config.task, pairs.chats(config.pair))
        texts, stop_strings = [task.prompt(text) for text in texts], task.stop_strings
    return generate_text(
        pairs.load(config.pair, sharding.from_config(config.get("mesh"))),
        texts,
        max_new_tokens=max_new_tokens,
        stop_strings=stop_strings,
        **given,
    )


def _prompts(prompt: str | None, path: str | None) -> list[str]:
    found = {}
    if prompt is not None:
        found["--prompt"] = text_files.argument(prompt, "--prompt")
    if path is not None:
        lines = text_files.read_lines(path)
        found |= {f"{path} line {number}": line for number, line in enumerate(lines, 1)}
    if not found:
        raise UserError("give --prompt or a --prompts_file with at least one line")
    for name, text in found.items():
        if not text.strip():
            raise UserError(f"{name} is empty; give it text or remove it")
    return list(found.values())
