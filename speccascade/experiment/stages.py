"""The stages of an experiment, each in a folder of its own that it goes on in after a stop.

expert    fine-tunes the expert from `pair.expert`, if the config has `fine_tuning`
drafter   the same of the drafter, from `pair.drafter`, distilled from the expert where it says so
sweep     measures every setting on the two
report    makes tables and figures of the sweep
"""

import os
from collections.abc import Callable, Sequence

import ml_collections

from speccascade import pairs, report, tasks
from speccascade.errors import UserError
from speccascade.evaluate import evaluation, sections
from speccascade.inputs import paths, values
from speccascade.sharding import hosts
from speccascade.training import loop

STAGES = ("expert", "drafter", "sweep", "report")
TRAINED = ("expert", "drafter")
TRAINED_EXPERT = "expert"
"""As `train.distill_from`: the model of that stage."""

_EXAMPLE = "configs/paper/t5_small_large.py"


def run(
    config: ml_collections.ConfigDict,
    workdir: str,
    stages: Sequence[str] = STAGES,
    say: Callable[[str], None] = print,
) -> None:
    """Runs the stages of an experiment that are not done yet.

    Args:
      config: `task`, `pair` and `evaluate`, as for `evaluate.run`; and where the models are not
        measured as they are `fine_tuning`, which has a `train` for each role, as for
        `training.loop`, and where wanted a `model` and a `mesh`.
      workdir: where each stage has its folder; gs:// works.
      stages: which; those that the config has not are left out.
      say: is told of each stage before it begins.

    Raises:
      UserError: something is not as it must be. What can be known of all stages is checked first,
        and nothing is written then.
    """
    workdir = paths.plain(workdir)
    if unknown := sorted(set(stages) - set(STAGES)):
        raise UserError(f"unknown stage {unknown[0]!r}; choose from: {', '.join(STAGES)}")
    with hosts.agreed():
        check(config, workdir)
    for stage in STAGES:
        if stage not in stages or stage in TRAINED and not trains(config):
            continue
        place = folder(workdir, stage)
        if hosts.is_first():
            say(f"== {stage}: {place}")
        if stage in TRAINED:
            loop.train(training(config, stage, workdir), place)
        elif stage == "sweep":
            outcome = evaluation.evaluate(sweep(config, workdir), place)
            if outcome.failed:
                raise UserError("; ".join([f"{len(outcome.failed)} rows failed", *outcome.failed]))
        elif hosts.is_first():
            text, written = report.report(folder(workdir, "sweep"))
            say("\n".join([text, *written]))


def folder(workdir: str, stage: str) -> str:
    """Returns where a stage has its files; the report is in the sweep's own."""
    return os.path.join(workdir, "sweep" if stage == "report" else stage)


def trains(config: ml_collections.ConfigDict) -> bool:
    """Returns whether the models are fine-tuned first."""
    return config.get("fine_tuning") is not None


def training(
    config: ml_collections.ConfigDict, role: str, workdir: str
) -> ml_collections.ConfigDict:
    """Returns the config by which `training.loop` fine-tunes a role."""
    section = config.fine_tuning[role]
    made = {key: section[key] for key in ("model", "mesh", "train") if section.get(key) is not None}
    made = ml_collections.ConfigDict({**made, "task": config.task}).copy_and_resolve_references()
    if not made.train.get("init_from"):
        made.train.init_from = config.pair[role]
    if made.train.get("distill_from") == TRAINED_EXPERT:
        made.train.distill_from = folder(workdir, "expert")
    return made


def sweep(config: ml_collections.ConfigDict, workdir: str) -> ml_collections.ConfigDict:
    """Returns the config by which the pair is measured: of the trained models, where there are."""
    names = (*sections.SECTIONS, *sections.OPTIONAL)
    made = ml_collections.ConfigDict({key: config[key] for key in names if key in config})
    made = made.copy_and_resolve_references()
    if trains(config):
        made.pair.update({role: folder(workdir, role) for role in TRAINED})
    return made


def check(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Raises UserError where a stage cannot be run, as far as that is known beforehand."""
    values.section("", config, sections.SECTIONS, _EXAMPLE)
    sections.read(sweep(config, workdir))
    task = tasks.make(config.task, pairs.chats(config.pair))
    splits = list(config.evaluate.splits)
    if trains(config):
        values.section("fine_tuning", config.fine_tuning, TRAINED, _EXAMPLE)
        for role in TRAINED:
            values.section(f"fine_tuning.{role}", config.fine_tuning[role], ["train"], _EXAMPLE)
            loop.prepare(training(config, role, workdir))
        if config.fine_tuning.expert.train.get("distill_from") == TRAINED_EXPERT:
            raise UserError("fine_tuning.expert.train.distill_from names itself; leave it empty")
        splits = ["train", *splits]
    for split in splits:
        if not task.examples(split, 1):
            raise UserError(f"task {task.name} has no examples of split {split}")
