"""Behind `scripts/lossy_modes.py --config --workdir`: measures modes, twins and rivals as fast."""

import os
from collections.abc import Container, Iterable, Mapping
from typing import Any

import ml_collections

from speccascade.errors import UserError
from speccascade.evaluate import evaluation, prepared
from speccascade.evaluate.jobs import QUALITY
from speccascade.inference.methods import KERNEL, TWIN
from speccascade.inference.reading import expand, from_fields
from speccascade.inference.setting import Setting
from speccascade.inputs import paths, values
from speccascade.lossy import matching
from speccascade.report.choice import TEST, VALIDATION
from speccascade.report.points import Points, collect, unseeded
from speccascade.workdir import results
from speccascade.workdir.files import write_json

RIVALS = "rivals.json"  # the families, in the workdir
Entries = list[Mapping[str, Any]]


def measure(config: ml_collections.ConfigDict, workdir: str) -> list[str]:
    """Measures what is missing in a workdir; see `matching` for what is measured where.

    Args:
      config: of scripts/evaluate.py, with splits validation and test; `evaluate.settings` are the
        modes with what stands beside them on both splits, and `rivals` the families.
      workdir: made if it is missing; started again, only what is missing is measured.

    Returns:
      A line for each job that failed.

    Raises:
      UserError: bad input; nothing is decoded then.
    """
    families = matching.families(config)
    if lacking := [split for split in (VALIDATION, TEST) if split not in config.evaluate.splits]:
        raise UserError(f"evaluate.splits lacks {lacking[0]}; give it a number of examples")
    beside: Entries = list(config.evaluate.settings)
    modes = modes_of(expand(beside))
    if not modes:
        raise UserError("evaluate.settings has no method=kernel: there is no mode to measure")
    there = {unseeded(from_fields(row)) for row in results.read(workdir)}  # by an earlier start
    asked = list(beside)
    for family in families:
        found = {s for each in there if (s := family.strength_of(each)) is not None}
        asked += [e for s in sorted({*family.grid, *found}) for e in family.at(s)]
    failed, points = _measure(config, workdir, asked, VALIDATION)
    write_json(os.path.join(paths.plain(workdir), RIVALS), values.json_ready(config.rivals))
    for _ in range(matching.ROUNDS):
        wanted = matching.missing(points, families, modes)
        if not wanted:
            break
        asked = [*asked, *wanted]
        more, points = _measure(config, workdir, asked, VALIDATION)
        failed += more
    rivals = {
        family.setting(match.strength): family.at(match.strength)
        for family in families
        for mode in modes
        if (match := matching.match(points, family, mode)) is not None
    }
    held_out = [*beside, *(entry for entries in rivals.values() for entry in entries)]
    more, _ = _measure(config, workdir, asked, TEST, set(expand(held_out)))
    return failed + more


def modes_of(settings: Iterable[Setting]) -> list[Setting]:
    """Returns the lossy modes among settings, seeds pooled."""
    return list(dict.fromkeys(unseeded(s) for s in settings if s.method is KERNEL))


def _measure(
    config: ml_collections.ConfigDict,
    workdir: str,
    entries: Entries,
    split: str,
    only: Container[Setting] | None = None,
) -> tuple[list[str], Points]:
    """Measures the quality of settings on a split: of `only` some, or of all but twins, which have
    no speed to be matched.

    Returns:
      A line for each job that failed, and all points measured.
    """
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.evaluate.settings = tuple(entries)
    sweep = prepared.prepare(own)
    jobs = [
        job
        for job in sweep.jobs
        if job.kind == QUALITY
        and job.split == split
        and (job.setting.method is not TWIN if only is None else job.setting in only)
    ]
    failed = evaluation.measure(sweep._replace(jobs=jobs), workdir).failed
    return failed, collect(prepared.measured(sweep, workdir), sweep.config, "")
