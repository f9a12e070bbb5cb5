"""Behind `scripts/lossy_modes.py --workdir`: each mode beside its twins and rivals as fast as it.

Two tables of the test split, and both as lossy_modes.csv in the workdir. Two questions are asked of
every pair, whether the mode is surely better and whether it is surely worse; those of a column, all
modes beside one kind of rival, share the error as in Holm's procedure, with the paired tests of
scripts/tune.py.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from speccascade import pairs, tasks
from speccascade import report as report_lib
from speccascade.errors import UserError
from speccascade.evaluate.quality import answered
from speccascade.inference.methods import TWIN
from speccascade.inference.reading import from_fields
from speccascade.inference.setting import Setting
from speccascade.inputs import paths
from speccascade.lossy.matching import Family, Match, families, match, tokens
from speccascade.lossy.measuring import RIVALS, modes_of
from speccascade.report import table
from speccascade.report.choice import TEST, VALIDATION
from speccascade.report.comparison import Comparison, compare
from speccascade.report.points import Point, Points, unseeded
from speccascade.tuning.evidence import quality_loss
from speccascade.tuning.sequences import certify
from speccascade.workdir import answers
from speccascade.workdir.files import read_json

CONFIDENCE = 0.95
WHAT = "twin", "twin without ends"  # of blocks: no token of it is a bonus
TITLES = "Against lossless rivals at equal tokens per expert call", "Against direct twins"


@dataclasses.dataclass(frozen=True)
class Beside:
    """A mode and what stands beside it.

    Attributes:
      mode: the mode.
      what: the rival's name, or one of `WHAT`.
      own: the mode's point on the test split; beside the twin without ends that of its twin, so
        that the two differ in what ends of blocks change.
      other: the other's; None where it was not measured.
      match: how the strength was found; None of twins.
      same: share of answers that are the same tokens; None where they are drawn.
    """

    mode: Setting
    what: str
    own: Point
    other: Point | None
    match: Match | None = None
    same: float | None = None


Judged = list[tuple[Beside, Comparison | None, str]]
"""Each pair, compared, and the verdict on the mode: "better", "worse", or neither."""


def report(workdir: str) -> str:
    """Writes lossy_modes.csv to a workdir and returns its tables, in Markdown.

    Args:
      workdir: of `measuring.measure`.

    Raises:
      UserError: nothing was measured there.
    """
    workdir = paths.plain(workdir)
    path = os.path.join(workdir, RIVALS)
    if not epath.Path(path).exists():
        raise UserError(
            f"{workdir} has no {RIVALS}; run scripts/lossy_modes.py "
            f"--config=configs/lossy_modes.py --workdir={workdir}"
        )
    known = families({"rivals": read_json(path)})
    points = report_lib.points_of(workdir)
    config = read_json(os.path.join(workdir, "config.json"))
    task = tasks.make(ml_collections.ConfigDict(config["task"]), pairs.chats(config["pair"]))
    modes = [mode for mode in modes_of(points.settings()) if points.of(mode, TEST)]
    modes.sort(key=lambda mode: -mode.temperature)
    beside = _rivals(points, known, modes), _twins(points, modes, workdir)
    judged = [
        [
            each
            for what in dict.fromkeys(one.what for one in found)
            for each in _judged([one for one in found if one.what == what], task.full_score)
        ]
        for found in beside
    ]
    made = _rival_table(points, known, modes, judged[0]), _twin_table(points, modes, judged[1])
    records = [_record(points, *each) for part in judged for each in part]
    (epath.Path(workdir) / "lossy_modes.csv").write_text(table.comma_separated(records))
    return table.markdown(made)


def _rivals(points: Points, known: Sequence[Family], modes: Sequence[Setting]) -> list[Beside]:
    found = []
    for mode in modes:
        for family in known:
            at = match(points, family, mode)
            if at is None:
                continue
            point = points.of(family.setting(at.strength), TEST)
            found.append(Beside(mode, family.name, points.of(mode, TEST), point, at))
    return found


def _twins(points: Points, modes: Sequence[Setting], workdir: str) -> list[Beside]:
    kept = {unseeded(from_fields(row)): row for row in answered(workdir, TEST)}

    def same(one: Setting, other: Setting) -> float | None:
        if one.temperature > 0 or not {one, other} <= kept.keys():
            return None
        both = [
            {a["id"]: a["tokens"] for a in answers.read(workdir, kept[each]["answers"])}
            for each in (one, other)
        ]
        shared = both[0].keys() & both[1].keys()
        return sum(both[0][i] == both[1][i] for i in shared) / len(shared)

    found = []
    for mode in modes:
        twin = dataclasses.replace(mode, method=TWIN, verifier=None)
        endless = dataclasses.replace(twin, draft_length=None)
        for what, one, other in zip(WHAT, (mode, twin), (twin, endless), strict=True):
            own, beside = points.of(one, TEST), points.of(other, TEST)
            if own is not None and beside is not None:
                found.append(Beside(mode, what, own, beside, same=same(one, other)))
    return found


def _judged(found: Sequence[Beside], full_score: float) -> Judged:
    told = [each for each in found if each.other is not None]

    def p_value(one: Point, other: Point) -> float:
        # Of "one is no better than the other".
        return quality_loss(one.scores, other.scores, full_score, one.aggregate).p_value(0.0)

    asked = [p_value(each.own, each.other) for each in told]
    asked += [p_value(each.other, each.own) for each in told]
    sure = certify([[p] for p in asked], 1 - CONFIDENCE).counts
    judged: Judged = [(each, None, "") for each in found if each.other is None]
    for each, better, worse in zip(told, sure, sure[len(told) :], strict=False):
        word = "better" if better else "worse" if worse else "not told apart"
        judged.append((each, compare("", each.own, each.other), word))
    return judged


def _digits(point: Point) -> int:
    return 3 if point.quality <= 1 else 1


def _name(mode: Setting) -> str:
    shown = [f"{k}={v:g}" for k, v in mode.knobs if k not in ("begin", "end")]
    return " ".join([f"`{mode.rule}`", *(f"`{each}`" for each in shown)])


def _rival_table(points, known, modes, judged) -> table.Table:
    names = list(dict.fromkeys(family.name for family in known))
    rows = []
    for temperature in dict.fromkeys(mode.temperature for mode in modes):
        expert = points.expert(temperature, TEST)
        if expert is not None:
            quality = table.number(expert.quality, _digits(expert))
            rows.append(["the expert", f"{temperature:g}", "1.00", quality, *[""] * len(names)])
        for mode in (m for m in modes if m.temperature == temperature):
            own = points.of(mode, TEST)
            cells = {each[0].what: _told(*each) for each in judged if each[0].mode == mode}
            quality = table.number(own.quality, _digits(own))
            row = [_name(mode), f"{temperature:g}", f"{tokens(own):.2f}", quality]
            rows.append([*row, *(cells.get(name, "") for name in names)])
    heads = ("mode", "T", "tokens per call", "quality", *names)
    return table.Table(TITLES[0], heads, rows)


def _told(found: Beside, comparison: Comparison | None, verdict: str) -> str:
    other = found.other
    if other is None:
        return f"{found.match.strength:g}: not measured"
    quality = table.number(other.quality, _digits(other))
    text = f"{found.match.strength:g}: {tokens(other):.2f}, {quality}"
    text = text if found.match.reaches else f"none; {text}"
    return text if verdict == "not told apart" else f"{text}: mode {verdict}"


def _twin_table(points, modes, judged) -> table.Table:
    rows = []
    for mode in modes:
        own = {each[0].what: each for each in judged if each[0].mode == mode}
        if not own:
            continue
        cells = []
        for what in WHAT:
            if what not in own:
                cells += [table.NOTHING] * 2
                continue
            each, comparison, verdict = own[what]
            digits = _digits(each.own)
            cells.append(table.number(each.other.quality, digits))
            if each.same is not None:
                cells.append(f"{100 * each.same:.1f} % same, {verdict}")
            else:
                gap = table.interval(
                    comparison.difference, comparison.difference_interval, digits, sign=True
                )
                cells.append(f"{gap}, {verdict}")
        point = points.of(mode, TEST)
        quality = table.number(point.quality, _digits(point))
        rows.append([_name(mode), f"{mode.temperature:g}", quality, *cells])
    heads = ("mode", "T", "quality", WHAT[0], "mode less it", WHAT[1], "twin less it")
    return table.Table(TITLES[1], heads, rows)


def _record(
    points: Points, found: Beside, comparison: Comparison | None, verdict: str
) -> Mapping[str, Any]:
    """Returns a line of lossy_modes.csv."""
    validation = points.of(found.own.setting, VALIDATION)
    other = found.other
    beside = other and points.of(other.setting, VALIDATION)
    low, high = comparison.difference_interval if comparison else (None, None)
    return {
        "setting": str(found.own.setting),
        "beside": found.what,
        "its_setting": other and str(other.setting),
        "strength": found.match and found.match.strength,
        "as_fast": found.match and found.match.reaches,
        "n": len(found.own.scores),
        "validation_tokens_per_call": validation and tokens(validation),
        "its_validation_tokens_per_call": beside and tokens(beside),
        "tokens_per_call": tokens(found.own),
        "its_tokens_per_call": other and tokens(other),
        "quality": found.own.quality,
        "its_quality": other and other.quality,
        "difference": comparison and comparison.difference,
        "difference_low": low,
        "difference_high": high,
        "verdict": verdict,
        "same_answers": found.same,
    }
