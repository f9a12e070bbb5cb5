"""What rows depend on beside their setting, each kind of row on no more than can change it.

A row keeps these as fields of its own, and its key is a digest of them:

    task, split       names
    pair, tokenizer   hashes of their content, the chat template included
    numerics          what rounding depends on: JAX, the kind of device, the mesh
    date              the day that chat prompts name as today, where they name one
    decoding          what answers depend on beside those: limits, stop strings, a version
    examples          the prompts; of what is measured on reference answers those too
    scoring           what makes scores of answers: the task's options, libraries, a version;
    references        beside it, what answers are compared with
    answers           the name under which the answers of the row are kept
    machine, timing   of timed rows alone

Versions say which edition of the code a row is of. They are raised by hand where a change makes
other tokens, scores or times of the same setting, which `tests/evaluate/test_versions.py` finds
out; editing anything else leaves every row as good as it was.
"""

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from speccascade.evaluate.jobs import TEACHER_FORCED, TIMING, Job
from speccascade.inference.engine import Engine
from speccascade.inference.setting import digest
from speccascade.tasks import Example, Task
from speccascade.workdir import provenance

DECODING, SCORING, FORCING, TIMES = 1, 1, 1, 1
COMMON = ("task", "pair", "tokenizer", "numerics", "date")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the rows of a sweep come from.

    Attributes:
      common: of the fields `COMMON` those that all rows have.
      decoding: of rows with answers.
      scoring: of quality rows.
      examples: by split.
    """

    common: Mapping[str, str]
    decoding: str
    scoring: str
    examples: Mapping[str, Sequence[Example]]
    _digests: dict[tuple, str] = dataclasses.field(default_factory=dict, compare=False)

    def row(self, job: Job) -> dict[str, Any]:
        """Returns the fields that tell a job's row from every other, `key` among them."""
        fields = {
            "kind": job.kind,
            "split": job.split,
            "num_examples": job.num_examples,
            "trials": job.trials,
            **job.setting.fields(),
            **self.common,
            **self._of_kind(job),
        }
        return {"key": digest(fields), **fields}

    def _of_kind(self, job: Job) -> dict[str, Any]:
        if job.kind == TEACHER_FORCED:
            return {"examples": self._digest(job, ("answer",)), "forcing": str(FORCING)}
        found = {"decoding": self.decoding, "examples": self._digest(job)}
        if job.kind == TIMING:
            return {**found, "timing": str(TIMES), "machine": provenance.machine()}
        scored = {"scoring": self.scoring, "references": self._digest(job, ("reference",))}
        return {**found, **scored, "answers": self.answers(job)}

    def _digest(self, job: Job, more: tuple[str, ...] = ()) -> str:
        """Returns a digest of the prompts of a job's examples, and of more of their fields."""
        key = job.split, job.num_examples, more
        if key not in self._digests:
            examples = self.examples[job.split][: job.num_examples]
            fields = ("id", "prompt", *more)
            self._digests[key] = digest([[repr(getattr(e, f)) for f in fields] for e in examples])
        return self._digests[key]

    def answers(self, job: Job) -> str:
        """Returns the name under which the answers of a quality job are kept.

        They outlive what does not change them: the number of examples, and how they are scored.
        """
        fields = {**job.setting.fields(), **self.common}
        return digest([job.split, fields, self.decoding])


def of(config: Mapping[str, Any], task: Task, engine: Engine, examples: Mapping) -> Origin:
    """Returns the origin of a sweep's rows.

    Args:
      config: its sections, JSON-ready.
      task: scores the answers.
      engine: the pair.
      examples: by split.
    """
    pair = engine.pair
    mesh = f", mesh {config['mesh']}" if "mesh" in config else ""
    common = {
        "task": task.name,
        "pair": pair.hash,
        "tokenizer": pair.tokenizer.content_hash,
        "numerics": provenance.numerics() + mesh,
        **({"date": pair.date} if pair.date else {}),
    }
    asked = {
        "max_new_tokens": engine.max_new_tokens,
        "stop_strings": list(engine.stop_strings),
        "chat": pair.chat,
        "lengths": list(pair.lengths),
    }
    decoding = f"{DECODING}, {digest(asked)}"
    return Origin(common, decoding, scoring(config["task"], task), examples)


def scoring(options: Mapping[str, Any], task: Task) -> str:
    """Returns what scores depend on beside answers and references.

    Args:
      options: the config's `task` section; where its data lie is no part of it.
      task: made of it.
    """
    own = {key: value for key, value in options.items() if key != "path"}
    versions = [f"{name} {importlib.metadata.version(name)}" for name in task.scored_with]
    return ", ".join([str(SCORING), *versions, digest(own)])
