"""Scores anew the answers that a workdir keeps, without its models: seconds, not hours."""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
from etils import epath

from speccascade import pairs, tasks
from speccascade.errors import UserError
from speccascade.evaluate import origin, quality
from speccascade.evaluate.jobs import QUALITY, Job
from speccascade.inference.reading import from_fields
from speccascade.workdir import answers, claim, results
from speccascade.workdir.files import read_json, write_json


class Scored(NamedTuple):
    """What came of scoring anew.

    Attributes:
      rows: how many quality rows there are.
      changed: for each whose quality changed, a line.
      left: for each that could not be scored, a line.
    """

    rows: int
    changed: list[str]
    left: list[str]

    def __str__(self) -> str:
        scored = self.rows - len(self.left)
        lines = [f"{scored} of {self.rows} rows scored anew, {len(self.changed)} changed"]
        return "\n".join([*lines, *self.changed, *(f"not scored: {line}" for line in self.left)])


def score(workdir: str, task_options: Mapping[str, Any] | None = None) -> Scored:
    """Scores the answers of every quality row anew; the rows take the place of those before.

    Args:
      workdir: of an evaluation; nothing is decoded.
      task_options: the `task` section by which to score, None for the workdir's own. It must be the
        same task with the same prompts, and is noted in the workdir's config.

    Raises:
      UserError: there is no evaluation, or the task is another; nothing in the workdir is changed.
    """
    path = os.path.join(workdir, "config.json")
    if not epath.Path(path).exists():
        raise UserError(f"{workdir} holds no evaluation; give the workdir of scripts/evaluate.py")
    config = read_json(path)
    if "evaluate" not in config:
        raise UserError(f"{workdir} belongs to a training; give the workdir of scripts/evaluate.py")
    options = config["task"] if task_options is None else json.loads(json.dumps(task_options))
    if options["name"] != config["task"]["name"]:
        raise UserError(
            f"{workdir} has answers of the task {config['task']['name']}, which {options['name']} "
            "cannot score"
        )
    task = tasks.make(ml_collections.ConfigDict(options), pairs.chats(config["pair"]))
    with contextlib.ExitStack() as held:
        check = held.enter_context(claim.claim(workdir))
        store = results.Results(workdir, check)
        made = _Scores(workdir, task, origin.scoring(options, task))
        rows = [row for row in store.rows.values() if row["kind"] == QUALITY]
        fresh = {row["key"]: new for row in rows if (new := made.row(row)) is not None}
        changed = [
            f"{_name(new)}: {store.rows[key]['quality']:.4g} -> {new['quality']:.4g}"
            for key, new in fresh.items()
            if new["quality"] != store.rows[key]["quality"]
        ]
        store.replace(fresh)
        if options != config["task"]:
            write_json(path, {**config, "task": options})
    return Scored(len(rows), changed, made.left)


class _Scores:
    """Rows scored anew.

    Attributes:
      left: a line for each that could not be.
    """

    def __init__(self, workdir: str, task: tasks.Task, scoring: str):
        self._workdir = workdir
        self._task = task
        self._scoring = scoring
        self._examples: dict[tuple[str, int], list[tasks.Example]] = {}
        self.left: list[str] = []

    def row(self, old: results.Row) -> results.Row | None:
        """Returns the row with scores of the task as it is now, None where that cannot be."""
        if "answers" not in old:
            self.left.append(f"{_name(old)}: its answers were not kept; evaluate it anew")
            return None
        key = old["split"], old["num_examples"]
        if key not in self._examples:
            self._examples[key] = self._task.examples(*key)
        examples = self._examples[key]
        kept = quality.of_examples(answers.read(self._workdir, old["answers"]), examples)
        if len(examples) < key[1] or None in kept:
            self.left.append(f"{_name(old)}: prompts are others now, or answers are gone")
            return None
        both = zip(kept, examples, strict=True)
        scores = [self._task.score(answer["text"], example) for answer, example in both]
        common = {name: old[name] for name in origin.COMMON if name in old}
        found = origin.Origin(common, old["decoding"], self._scoring, {key[0]: examples})
        job = Job(QUALITY, from_fields(old), *key)
        return {**old, **quality.scored(scores, self._task), **found.row(job)}


def _name(row: results.Row) -> str:
    return f"{from_fields(row)} on {row['split']}"
