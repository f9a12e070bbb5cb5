"""What a config says of a sweep, checked before anything is loaded."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from speccascade import learned_head, pairs, tasks
from speccascade.errors import UserError
from speccascade.inference.reading import expand
from speccascade.inference.setting import Setting
from speccascade.inputs import values

SECTIONS = ("task", "pair", "evaluate")
OPTIONAL = ("mesh",)
_NEEDED = (
    "settings",
    "splits",
    "max_new_tokens",
    "batch_size",
    "timing.num_examples",
    "timing.trials",
)
_EXAMPLE = "configs/quickstart.py"


def read(config: ml_collections.ConfigDict) -> tuple[dict[str, Any], list[Setting]]:
    """Returns a sweep's sections of a config, JSON-ready, and its settings; nothing is loaded.

    Raises:
      UserError: a section lacks something, or something is out of range.
    """
    values.section("", config, SECTIONS, _EXAMPLE)
    plain = values.json_ready({k: config[k] for k in SECTIONS + OPTIONAL if k in config})
    section = values.section("evaluate", plain["evaluate"], _NEEDED, _EXAMPLE)
    values.section("evaluate.timing", section["timing"])
    if not isinstance(section["splits"], Mapping) or not section["splits"]:
        raise UserError(
            f"evaluate.splits={section['splits']!r} must say how many examples of each, such as "
            "{'test': 96}"
        )
    settings = expand(section["settings"], pairs.named_drafters(plain["pair"]))
    check(section)
    return plain, settings


def check(section: Mapping[str, Any]) -> None:
    """Raises UserError where a number of the section is out of range."""
    wanted = {"batch_size": 1, "max_new_tokens": 1}
    numbers = {f"evaluate.{k}": (section[k], least) for k, least in wanted.items()}
    for k, least in {"num_examples": 0, "trials": 1}.items():
        numbers[f"evaluate.timing.{k}"] = section["timing"][k], least
    for split, count in section["splits"].items():
        if split not in tasks.SPLITS:
            raise UserError(f"unknown split {split!r}; choose from: {', '.join(tasks.SPLITS)}")
        numbers[f"evaluate.splits.{split}"] = count, 1
    for name, (value, least) in numbers.items():
        values.whole(name, value, least)


def check_heads(setting: Setting, task: str, splits: Mapping[str, int]) -> None:
    """Raises UserError where a head would be measured by examples that it was trained on."""
    for value in setting.heads:
        notes = learned_head.notes(value)
        split, first = notes.get("split", "train"), notes.get("first", 0)
        if notes.get("task") == task and splits.get(split, 0) > first:
            change = (
                f"lower evaluate.splits.{split} (now {splits[split]}) to that"
                if first
                else f"leave evaluate.splits.{split} out"
            )
            raise UserError(
                f"head {value} was trained on examples of split {split} from {first} on; {change}, "
                "or train another"
            )
