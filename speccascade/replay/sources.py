"""Where saved distributions come from, and what decoding itself measured there."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from speccascade.errors import UserError
from speccascade.evaluate.quality import answered
from speccascade.inference.reading import find, from_fields
from speccascade.inference.setting import Setting
from speccascade.report.points import unseeded
from speccascade.workdir import distributions, results
from speccascade.workdir.answers import path_of
from speccascade.workdir.distributions import Recorded

# What decoding measures and a replay estimates.
CALLS = "tokens_per_expert_call"


@dataclasses.dataclass(frozen=True)
class Source:
    """The answers of one setting, or those of a file.

    Attributes:
      name: what tables call it.
      answers: at least one.
      setting: whose answers they are; None where a file does not say.
      measured: tokens per expert call by setting, seeds pooled, on the same examples.
    """

    name: str
    answers: list[Recorded]
    setting: Setting | None = None
    measured: Mapping[Setting, float] = dataclasses.field(default_factory=dict)


def read(source: str, split: str) -> list[Source]:
    """Reads a file of distributions, or those of a workdir.

    Args:
      source: the file; or WORKDIR, or `WORKDIR#SETTING` in words that tell it.
      split: of a workdir.

    Raises:
      UserError: there are none, some are missing, or a file is not as it must be.
    """
    named = results.named(source)
    if named is None:
        return [Source(os.path.basename(source), list(distributions.read(source)))]
    path, words = named
    # Of those of one setting the largest counts.
    rows = sorted(answered(path, split), key=lambda row: row["num_examples"])
    saved = {from_fields(row): row for row in rows if epath.Path(_file(path, row)).exists()}
    if not saved:
        raise UserError(
            f"{path} has no distributions of split {split}; run scripts/evaluate.py with "
            "--save_distributions"
        )
    chosen = [find(words, list(saved))] if words else list(saved)
    return [
        Source(str(one), _whole(path, saved[one], split), one, _measured(rows, saved[one]))
        for one in chosen
    ]


def can_be_replayed(setting: Setting) -> bool:
    """Returns whether it is a rule over the pair's drafter, whose distributions are saved."""
    return setting.method.has_rule and setting.method.in_blocks and setting.drafting.has_q


def _file(path: str, row: Mapping[str, Any]) -> str:
    return path_of(path, row["answers"], distributions.FOLDER)


def _whole(path: str, row: Mapping[str, Any], split: str) -> list[Recorded]:
    file = _file(path, row)
    made_by = {name: row[name] for name in distributions.MADE_BY if name in row}
    found = list(distributions.read(file, made_by))
    if len(found) < row["num_examples"]:
        raise UserError(
            f"{file} has {len(found)} of the {row['num_examples']} answers of {split}; run "
            "scripts/evaluate.py with --save_distributions again"
        )
    return found


def _measured(
    rows: Sequence[Mapping[str, Any]], recorded: Mapping[str, Any]
) -> dict[Setting, float]:
    """Returns what decoding measured on the examples of a row."""
    found = defaultdict(list)
    for row in rows:
        setting = from_fields(row)
        if row["num_examples"] != recorded["num_examples"]:
            continue
        if can_be_replayed(setting):
            found[unseeded(setting)].append(row[CALLS])
    return {setting: float(np.mean(calls)) for setting, calls in found.items()}
