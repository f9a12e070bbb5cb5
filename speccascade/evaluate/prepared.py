"""A sweep that is checked: its prompts, its jobs, and which of them a workdir has already."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from speccascade import pairs, sharding, tasks
from speccascade.errors import UserError
from speccascade.evaluate import origin, quality, sections
from speccascade.evaluate.jobs import Job, plan
from speccascade.evaluate.origin import Origin
from speccascade.evaluate.recording import Recording
from speccascade.inference.engine import Engine
from speccascade.models import memory
from speccascade.workdir import results
from speccascade.workdir.answers import read as kept_answers


class Sweep(NamedTuple):
    """A checked sweep.

    Attributes:
      config: the sections that it depends on, JSON-ready.
      engine: the pair.
      task: scores the answers.
      prompts: by split.
      jobs: all of it.
      origin: what its rows depend on.
      recorded: the jobs whose answers' distributions are saved.
      top: how many tokens of each; None for all.
    """

    config: dict[str, Any]
    engine: Engine
    task: tasks.Task
    prompts: dict[str, quality.Prompts]
    jobs: list[Job]
    origin: Origin
    recorded: Sequence[Job] = ()
    top: int | None = None


def prepare(
    config: ml_collections.ConfigDict, weights: bool = True, saved: Recording | None = None
) -> Sweep:
    """Checks everything that can be known before long work starts, and loads it.

    Args:
      config: see `evaluation.evaluate`.
      weights: whether anything is to be decoded; else the models' weights may be left unread.
      saved: see `evaluation.evaluate`.

    Raises:
      UserError: a setting, the task, the pair or a prompt is not as it must be.
    """
    plain, settings = sections.read(config)
    asked = plain["evaluate"]
    layout = sharding.from_config(plain.get("mesh"))
    task = tasks.make(config.task, pairs.chats(plain["pair"]))
    examples = {}
    for split, count in asked["splits"].items():
        examples[split] = task.examples(split, count)
        if len(examples[split]) < count:
            change = (
                f"lower evaluate.splits.{split} (now {count}) to that"
                if examples[split]
                else f"give the task some, or leave evaluate.splits.{split} out"
            )
            raise UserError(f"split {split} has {len(examples[split])} examples; {change}")
    pair = pairs.load(plain["pair"], layout, weights)
    engine, prompts = _tokenize(pair, task, examples, asked["max_new_tokens"])
    for setting in settings:
        engine.check(setting)
        sections.check_heads(setting, config.task.name, asked["splits"])
    if layout is None:
        rows, slots = asked["batch_size"], engine.prompt_slots + engine.max_new_tokens
        needed = memory.of_pass(pair.models["expert"], rows, 1, slots)
        memory.check(f"evaluate.batch_size={rows}", needed, "lower it")
    jobs = plan(settings, asked)
    return Sweep(
        plain,
        engine,
        task,
        prompts,
        jobs,
        origin.of(plain, task, engine, examples),
        saved.jobs(jobs, engine) if saved else (),
        saved.top if saved else None,
    )


def _tokenize(
    pair: pairs.Pair, task: tasks.Task, examples: Mapping[str, Sequence], max_new_tokens: int
) -> tuple[Engine, dict[str, quality.Prompts]]:
    fitted = {
        split: pair.fit_prompts([e.prompt for e in found], max_new_tokens)
        for split, found in examples.items()
    }
    every = [prompt.ids for found in fitted.values() for prompt in found]
    engine = Engine.build(pair, every, max_new_tokens, task.stop_strings)
    prompts = {}
    for split, found in examples.items():
        requests = [
            engine.request(p.ids, example.id, f"the prompt of {split} example {example.id}", p.cut)
            for p, example in zip(fitted[split], found, strict=True)
        ]
        answers = pair.encode_answers([e.answer for e in found])
        prompts[split] = quality.Prompts(found, requests, answers)
    return engine, prompts


def measured(sweep: Sweep, workdir: str) -> list[results.Row]:
    """Returns the rows of the sweep's jobs that are there, oldest first."""
    keys = {sweep.origin.row(job)["key"] for job in sweep.jobs}
    return [row for row in results.read(workdir) if row["key"] in keys]


def missing(sweep: Sweep, rows: Mapping[str, Any]) -> list[Job]:
    """Returns the jobs that have no row yet."""
    return [job for job in sweep.jobs if sweep.origin.row(job)["key"] not in rows]


def kept(sweep: Sweep, job: Job, workdir: str) -> list[list[int] | None]:
    """Returns the tokens that quality gave a job's examples, None where nothing is kept."""
    found = kept_answers(workdir, sweep.origin.answers(job))
    examples = sweep.prompts[job.split].examples[: job.num_examples]
    answers = quality.of_examples(found, examples)
    return [None if answer is None else answer["tokens"] for answer in answers]
