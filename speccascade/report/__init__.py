"""What a sweep says: tables, verdicts and figures.

points.py       rows as points
choice.py       each method at its best, chosen on validation; choice_table.py prints it
comparison.py   one setting against another; verdicts.py says in words what comes out
every_setting.py  all that was measured
correlation.py  rejection rate against latency
tradeoffs.py references.py slices.py   figures, in one style.py
answers.py      where two settings' answers differ; beside.py several workdirs in one table
notes.py        what stands below the tables; caveats.py finds what was shortened
headline.py     a sentence for each temperature, and a table of few figures
page.py         the same as a web page, with plots to point at from scatter.py
table.py        Markdown, LaTeX and CSV
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from speccascade import pairs
from speccascade.errors import UserError
from speccascade.evaluate.jobs import TIMING
from speccascade.inference.reading import expand
from speccascade.inputs import paths
from speccascade.report import (
    answers,
    beside,
    choice_table,
    columns,
    correlation,
    every_setting,
    headline,
    page,
    references,
    slices,
    table,
    tradeoffs,
    verdicts,
)
from speccascade.report.choice import CRITERIA, TEST, VALIDATION, choose, complete_temperatures
from speccascade.report.notes import about, is_timed
from speccascade.report.points import Points, collect
from speccascade.workdir import results
from speccascade.workdir.files import read_json
from speccascade.workdir.storage import storage

# By file: title, what draws it where there is something to draw, and what a reader must know.
Figure = tuple[str, Callable[[str], None], str]


def report(
    workdir: str,
    only_newest: bool = False,
    asked: Sequence[str] = (),
    web_page: bool = False,
    in_brief: bool = False,
) -> tuple[str, list[str]]:
    """Writes report.md, tables and figures to `workdir`/report.

    Where the config has nothing timed no setting can be chosen by speed, and the main tables have
    them all.

    Args:
      workdir: of scripts/evaluate.py.
      only_newest: whether rows of another edition are left out, not marked.
      asked: columns that tables have beside those that they always have, see `columns.shown`.
      web_page: whether report.html is written, too.
      in_brief: whether a few figures of every setting, and what they say, are returned in place of
        the main tables.

    Returns:
      The main tables and verdicts as Markdown, and the paths written.

    Raises:
      UserError: the workdir lacks what a table needs; the message says which command measures it.
        Or there is no such column.
    """
    workdir = paths.plain(workdir)
    columns.shown(asked)
    config = _config(workdir)
    points = points_of(workdir, only_newest)
    directory = epath.Path(workdir) / "report"
    directory.mkdir(parents=True, exist_ok=True)
    written = []

    def path(name: str) -> str:
        written.append(os.path.join(workdir, "report", name))
        return written[-1]

    timed = is_timed(points)
    temperatures = complete_temperatures(points) if timed else []
    choices = [choose(points, t, criterion) for t in temperatures for criterion in CRITERIA]
    confined = _confined(points) if timed else []
    related = correlation.correlations(points, TEST)
    answers, answered, questions = verdicts.question_section(points) if timed else ([], [], [])
    beside, comparisons = verdicts.lossless_section(points) if timed else ([], [])

    measured = every_setting.tables(points, TEST, asked)
    tables = [choice_table.make(c, points, None, asked) for c in choices] if timed else measured
    notes = about(points)
    main = table.markdown(tables, notes)
    if answers:
        main += "\n".join(["", "**Does the token rule win?**", "", *answers, ""])
    details = ["", "# Details"]
    if answered:
        details += ["", "## Does the token rule win?", *_ASKED, *answered]
    if beside:
        details += ["", "## Against lossless speculative decoding", *_BESIDE, *beside]
    fixed = [choice_table.make(found, points, n, asked) for n, found in confined]
    if fixed:
        details += ["", "## At each draft length", "", table.markdown(fixed)]
    if timed:
        details += ["", "## Every setting", *_MEASURED, "", table.markdown(measured)]
    if related:
        details += ["", "## Rejection rate and latency", *_RELATED]
        details += ["", table.markdown([correlation.table(related)])]
    details += ["", "## Figures"]
    for name, (title, draw, text) in _figures(points).items():
        draw(path(name))
        details += ["", f"### {title}", "", *([text, ""] if text else []), f"![{title}]({name})"]

    for name, content in {
        "report.md": main + "\n".join([*details, ""]),
        "table.csv": table.comma_separated(
            [choice_table.record(c, points) for found in choices for c in found]
        ),
        "table.tex": table.latex(tables, notes),
        "settings.csv": table.comma_separated(every_setting.records(points, TEST)),
        "draft_length.csv": table.comma_separated(
            [{"N": n, **choice_table.record(c, points)} for n, found in confined for c in found]
        ),
        "draft_length.tex": table.latex(fixed) if fixed else "",
        "comparisons.csv": table.comma_separated(
            [verdicts.record(c) for c in questions + comparisons]
        ),
        "correlation.csv": table.comma_separated([dataclasses.asdict(c) for c in related]),
        "correlation.tex": table.latex([correlation.table(related)]) if related else "",
        "references.csv": table.comma_separated(references.records(points)),
        "report.html": page.render(points, workdir, config, asked) if web_page else "",
    }.items():
        if content:
            epath.Path(path(name)).write_text(content)
    if in_brief:
        said = [headline.units(points, config["task"]), *headline.sentences(points)]
        main = table.markdown(headline.brief(points), said)
    return main, sorted(written)


def report_beside(
    workdirs: Sequence[str], only_newest: bool = False, asked: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Writes beside.md and beside.csv, several workdirs' figures side by side, to the first's.

    The arguments are those of `report`.

    Returns:
      The tables as Markdown, and the paths written.

    Raises:
      UserError: a workdir lacks what a table needs, or they are of different tasks.
    """
    workdirs = [paths.plain(workdir) for workdir in workdirs]
    columns.shown(asked)
    names = beside.titles(workdirs)
    by_title = {t: points_of(w, only_newest) for t, w in zip(names, workdirs, strict=True)}
    text = table.markdown(beside.tables(by_title, TEST, asked), beside.notes(by_title))
    directory = epath.Path(workdirs[0]) / "report"
    directory.mkdir(parents=True, exist_ok=True)
    made = {"beside.md": text, "beside.csv": table.comma_separated(beside.records(by_title, TEST))}
    for name, content in made.items():
        (directory / name).write_text(content)
    return text, [os.fspath(directory / name) for name in made]


def compare_answers(workdir: str, left: str, right: str, split: str = TEST, limit: int = 10) -> str:
    """Returns where the answers of two settings differ, see `answers.differing`."""
    workdir = paths.plain(workdir)
    return answers.differing(workdir, _config(workdir), left, right, split, limit)


def _config(workdir: str) -> dict[str, Any]:
    command = f"python scripts/evaluate.py --config=CONFIG.py --workdir={workdir}"
    with storage(workdir):
        measured = (epath.Path(workdir) / "config.json").exists()
    if not measured:
        raise UserError(f"{workdir} holds no evaluation; run {command}")
    config = read_json(os.path.join(workdir, "config.json"))
    if "evaluate" not in config:
        raise UserError(f"{workdir} belongs to a training; give the workdir of scripts/evaluate.py")
    return config


def points_of(workdir: str, only_newest: bool = False) -> Points:
    """Returns a workdir's points; raises UserError where a table lacks what it needs."""
    config = _config(workdir)
    command = f"python scripts/evaluate.py --config=CONFIG.py --workdir={workdir}"
    rows = results.read(workdir)
    points = collect(rows, config, command, only_newest)
    if not complete_temperatures(points):
        own = "the expert's own decoding (autoregressive_expert, not truncated) was not measured"
        ask = " yet;" if _asks_for_expert(config) else "; let the config ask for it and"
        raise UserError(f"{own} on {VALIDATION} and {TEST}{ask} run {command}")
    if config["evaluate"]["timing"]["num_examples"] and not is_timed(points):
        if times := sum(row["kind"] == TIMING for row in rows):
            told = (
                f"of no setting are there a quality and a time: {times} times are of settings "
                "whose quality was not measured yet, or of another pair or machine"
            )
        else:
            told = "no setting was timed yet"
        raise UserError(f"{told}; run {command}")
    return points


def _asks_for_expert(config: dict[str, Any]) -> bool:
    """Returns whether a config has what every table needs measured."""
    section = config["evaluate"]
    grid = expand(section["settings"], pairs.named_drafters(config.get("pair", "")))
    alone = any(s.method.alone == "expert" and not s.expert_truncation for s in grid)
    return alone and {VALIDATION, TEST} <= set(section["splits"])


def _confined(points: Points) -> list[tuple[int, list]]:
    """Returns the choices within each draft length, where there are several."""
    lengths = sorted({s.draft_length for s in points.settings() if s.draft_length is not None})
    if len(lengths) < 2:
        return []
    found = [
        (n, choose(points, t, criterion, n))
        for t in complete_temperatures(points)
        for criterion in CRITERIA
        for n in lengths
    ]
    return [(n, choices) for n, choices in found if choices]


def _figures(points: Points) -> dict[str, Figure]:
    """Returns the figures that this sweep has something for."""

    def plain(draw):
        return lambda path: draw(points, TEST, path)

    def over(found, below):
        return lambda path: slices.draw(found, below, path)

    figures: dict[str, Figure] = {}
    if is_timed(points):
        figures["quality_latency.png"] = (
            "Quality against latency",
            plain(tradeoffs.quality_latency),
            "",
        )
    if any(setting.method.in_blocks for setting in points.settings()):
        figures["quality_calls.png"] = (
            "Quality against tokens per expert call",
            plain(tradeoffs.quality_calls),
            "",
        )
    figures["quality_rejection.png"] = (
        "Quality against rejection rate",
        plain(tradeoffs.quality_rejection),
        "",
    )
    decoded = (p for (_, s), p in points.by_setting.items() if s == TEST)
    if any(p.rates["deferral_rate"] is not None for p in decoded):
        figures["quality_deferral.png"] = (
            "Quality against deferral rate, decoded",
            plain(tradeoffs.quality_deferral),
            "The share of the drafter's mass that is deferred, over the positions of the emitted "
            "tokens; of the sequential cascades, the share of tokens that the expert wrote.",
        )
    if references.has_figure(points, TEST):
        figures["references_deferral.png"] = (
            "Quality against deferral rate, on the references",
            plain(references.quality_deferral),
            "Teacher-forced: both models score the reference answers once; quality is the mean "
            "probability of the reference's token under the target distribution. The oracle "
            "defers the positions at which the expert's probability of that token exceeds the "
            "drafter's by most: an upper bound for rules that decide by position. Rules that "
            "decide by token can in principle pass it. At temperature 0 the probability is 1 or "
            "0, whether the token is the model's first choice.",
        )
    optional = {
        "temperature.png": (
            "Over temperature",
            slices.by_temperature(points),
            "temperature",
            "Every method at its best quality within the expert's latency, the drafter alone left "
            "out.",
        ),
        "top_p_expert.png": (
            "Over the expert's top-p",
            slices.by_top_p(points, "expert"),
            "expert's top-p",
            "1 is without truncation.",
        ),
        "top_p_drafter.png": (
            "Over the drafter's top-p",
            slices.by_top_p(points, "drafter"),
            "drafter's top-p",
            "1 is without truncation.",
        ),
        "draft_length.png": (
            "Over the draft length",
            slices.by_draft_length(points),
            "draft length N",
            "Settings that differ in N alone.",
        ),
    }
    for name, (title, found, below, text) in optional.items():
        if found:
            figures[name] = (title, over(found, below), text)
    return figures


_ASKED = (
    "",
    "Each rival stands where the two criteria put it. At its latency: of the token rule's settings "
    "that are at least as fast on validation, the best in quality. At its quality: of those at "
    "least as good on validation, the fastest. Compared on test, over the same examples.",
)
_BESIDE = (
    "",
    "Each method's choice of the main tables against `spec` at the same temperature, draft length "
    "and verifier, or where that was not measured at its fastest. Differences of quality are "
    "paired over examples; speed is the ratio of the two speed-ups, paired over the timed ones.",
)
_MEASURED = ("", "On test, with 95 % bootstrap intervals; nothing here was chosen.")
_RELATED = (
    "",
    "Over the settings of the token verifier that were timed, on test: rejection rate and latency "
    "per token relative to the expert's own, with 95 % bootstrap intervals over settings. Where "
    "rejection rates hardly differ, or the time of a pass does, it is low.",
)
