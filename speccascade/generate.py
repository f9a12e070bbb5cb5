"""Behind `scripts/generate.py`: from flags to answers."""

import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from speccascade import pairs, paths, sharding, tasks
from speccascade.api import Completion, generate_text
from speccascade.errors import UserError


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
    try:
        given |= json.loads(knobs)
    except (ValueError, TypeError):
        raise UserError(f'--knobs={knobs} must be a JSON object, such as {{"k": 3}}') from None
    if "method" not in given:
        given = {"rule": "spec", "draft_length": 5, **given}
    texts, stop_strings = _prompts(prompt, prompts_file), ()
    if "task" in config:
        task = tasks.make(config.task)
        texts, stop_strings = [task.prompt(text) for text in texts], task.stop_strings
    return generate_text(
        pairs.load(config.pair, sharding.from_config(config.get("mesh"))),
        texts,
        max_new_tokens=max_new_tokens,
        stop_strings=stop_strings,
        **given,
    )


def _prompts(prompt: str | None, path: str | None) -> list[str]:
    found = [] if prompt is None else [prompt]
    if path is not None:
        try:
            with open(paths.on_disk(path, "--prompts_file")) as lines:
                found += [line.rstrip("\n") for line in lines]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read --prompts_file={path}: {error}") from None
    if not found:
        raise UserError("give --prompt or a --prompts_file with at least one line")
    for number, text in enumerate(found, 1):
        if not text.strip():
            raise UserError(f"prompt {number} is empty; give it text or remove its line")
    return found
