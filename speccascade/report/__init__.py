"""What a sweep says: the table and the trade-off plots."""

import os

from etils import epath

from speccascade.errors import UserError
from speccascade.evaluate import results
from speccascade.importing.sources import storage
from speccascade.report import plots, table
from speccascade.report.choice import CRITERIA, TEST, VALIDATION, choose, complete_temperatures
from speccascade.report.points import Points, collect
from speccascade.training.checkpoints import read_json


def report(workdir: str) -> tuple[str, list[str]]:
    """Writes tables and plots to `workdir`/report.

    Returns:
      The table as Markdown, and the paths written.

    Raises:
      UserError: the workdir lacks what a table needs; the message says which command measures it.
    """
    command = f"python scripts/evaluate.py --config=CONFIG.py --workdir={workdir}"
    with storage(os.fspath(workdir)):
        measured = (epath.Path(workdir) / "config.json").exists()
    if not measured:
        raise UserError(f"{workdir} holds no evaluation; run {command}")
    config = read_json(os.path.join(workdir, "config.json"))
    if "evaluate" not in config:
        raise UserError(f"{workdir} belongs to a training; give the workdir of scripts/evaluate.py")
    points = collect(results.read(workdir), config, command)
    temperatures = complete_temperatures(points)
    if not temperatures:
        raise UserError(
            "the expert's own decoding (autoregressive_expert, not truncated) was not measured on "
            f"{VALIDATION} and {TEST}; let the config ask for it and run {command}"
        )
    if not any(point.timing for point in points.by_setting.values()):
        raise UserError(f"no setting was timed yet; run {command}")
    tables = [choose(points, t, criterion) for t in temperatures for criterion in CRITERIA]
    notes = _notes(points)
    text = table.markdown(tables, notes)
    directory = os.path.join(workdir, "report")
    epath.Path(directory).mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in {
        "table.md": text,
        "table.csv": table.comma_separated(tables),
        "table.tex": table.latex(tables, notes),
    }.items():
        written.append(os.path.join(directory, name))
        epath.Path(written[-1]).write_text(content)
    for name, draw in {
        "quality_latency.png": plots.quality_latency,
        "quality_rejection.png": plots.quality_rejection,
    }.items():
        written.append(os.path.join(directory, name))
        draw(points, TEST, written[-1])
    return text, written


def _notes(points: Points) -> list[str]:
    notes = [f"{c.title}: {c.rule}." for c in CRITERIA]
    notes.append(
        "Chosen on validation, reported on test, with 95 % bootstrap intervals over examples, "
        'paired for differences and speed-ups; "not told apart" where the interval holds zero (for '
        "a speed-up, 1)."
    )
    notes.append(
        "Speed-up: wall-clock per token of whole answers at batch 1, prefill included, against the "
        "expert's own decoding of the same prompts in the same process. The expert's row is its "
        "decoding timed twice: what differs from 1 there is noise."
    )
    counts = {
        split: max(len(p.scores) for p in points.by_setting.values() if p.split == split)
        for split in (VALIDATION, TEST)
    }
    timed = max((len(p.timing.ms) for p in points.by_setting.values() if p.timing), default=0)
    notes.append(
        f"{counts[VALIDATION]} validation and {counts[TEST]} test examples, {timed} of each timed; "
        + ", ".join(f"{name} {value}" for name, value in points.shared.items())
        + "."
    )
    return notes + [f"{note}." for note in points.notes]
