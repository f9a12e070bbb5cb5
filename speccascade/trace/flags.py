"""Behind `scripts/trace.py`: from flags to settings, and from them to what is shown."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from speccascade import pairs, rules, tasks
from speccascade.errors import UserError
from speccascade.inference.reading import entries_of, setting
from speccascade.inference.setting import Setting
from speccascade.inputs import paths, plain_text, text_files, values
from speccascade.trace import page
from speccascade.trace.tracing import Comparison, trace_prompt

DEFAULT_RULES = ("spec", "token_v3", "opt")


def from_flags(
    config: ml_collections.ConfigDict,
    *,
    prompt: str | None,
    names: Sequence[str],
    alphas: Sequence[str],
    knobs: str,
    fields: Mapping[str, Any],
    max_new_tokens: int,
    html: str | None,
) -> Comparison:
    """Decodes a prompt with the pair of `config` under each rule, and writes the page.

    Args:
      config: its `pair` answers; its `task`, if it has one, says how a prompt is made and where an
        answer stops.
      prompt: the prompt.
      names: rules.
      alphas: see `settings`.
      knobs: JSON object of further fields, see `settings`.
      fields: further fields of every setting; None for one that was not given.
      max_new_tokens: the most tokens of an answer.
      html: where the page goes; None for none.

    Raises:
      UserError: something is not as it must be. Nothing is decoded then.
    """
    prompt = "" if prompt is None else text_files.argument(prompt, "--prompt")
    if not prompt.strip():
        raise UserError("the prompt is empty; give --prompt some text")
    chosen = settings(config, names, alphas, knobs, fields)
    max_new_tokens = values.whole("max_new_tokens", max_new_tokens, 1)
    if html is not None:
        html = paths.on_disk(html, "a web page")
        _check_writable(html)
    stop_strings: Sequence[str] = ()
    if "task" in config:
        task = tasks.make(config.task, pairs.chats(config.pair))
        prompt, stop_strings = task.prompt(prompt), task.stop_strings
    comparison = trace_prompt(
        pairs.load(config.pair),
        prompt,
        chosen,
        max_new_tokens=max_new_tokens,
        stop_strings=stop_strings,
    )
    if html is not None:
        with open(html, "w", encoding="utf-8") as file:
            file.write(page.render(comparison))
    return comparison


def settings(
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    alphas: Sequence[str],
    knobs: str,
    fields: Mapping[str, Any],
) -> list[Setting]:
    """Returns a setting per rule.

    Args:
      config: where no alpha is given, a rule takes its knobs from the middle one of the settings
        that `config.evaluate` has for it.
      names: rules.
      alphas: one for all rules that have an alpha, or one for each of them in their order.
      knobs: JSON object of further fields. A knob goes to the rules that have it, anything else to
        all.
      fields: further fields of every setting; None for one that was not given.

    Raises:
      UserError: a name or a value is not as it must be.
    """
    names, alphas = plain_text.several(names, "--rules"), plain_text.several(alphas, "--alpha")
    if not names:
        raise UserError("no rule was given; give --rules at least one")
    takers = [i for i, name in enumerate(names) if "alpha" in rules.definition(name).knobs]
    values = [_number(text) for text in alphas]
    if values and not takers:
        raise UserError("--alpha is given and none of the rules takes one")
    if len(values) not in (0, 1, len(takers)):
        raise UserError(
            f"--alpha has {len(values)} values and {len(takers)} of the rules take one; give one "
            "for all, or one for each of these in the order of --rules"
        )
    alpha_of = dict(zip(takers, values * len(takers) if len(values) == 1 else values, strict=False))
    more = text_files.parse_object(knobs, f"--knobs={knobs}")
    every = {"draft_length": 5, **{k: v for k, v in fields.items() if v is not None}}
    own = {key for name in names for key in rules.definition(name).knobs}
    named = pairs.named_drafters(config.pair)
    found = []
    for i, name in enumerate(names):
        has = rules.definition(name).knobs
        given = {k: v for k, v in more.items() if k in has or k not in own}
        if i in alpha_of:
            given["alpha"] = alpha_of[i]
        elif "alpha" in has and "alpha" not in given:
            given = {**_swept(config, name), **given}
        found.append(setting({"rule": name, **every, **given}, named))
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(
            f"--alpha={text} must be a number, or several with commas between"
        ) from None


def _swept(config: ml_collections.ConfigDict, name: str) -> dict[str, float]:
    """Returns the middle knobs of the config's own sweep of a rule, none where it has none."""
    if "evaluate" not in config or "settings" not in config.evaluate:
        return {}
    entries = entries_of("evaluate.settings", config.evaluate["settings"])
    knobs = {
        tuple((key, entry[key]) for key in rules.definition(name).knobs if key in entry)
        for entry in entries
        if entry.get("rule") == name and "draft_length" in entry
    }
    ordered = sorted(knobs)
    return dict(ordered[(len(ordered) - 1) // 2]) if ordered else {}


def _check_writable(path: str) -> None:
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise UserError(f"--html={path} must be a file in a folder that exists")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise UserError(f"--html={path} cannot be written; choose another place")
