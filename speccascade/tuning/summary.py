"""What was chosen and whether its promise held, for people and as JSON."""

import os
import types
from collections.abc import Mapping
from typing import Any

from etils import epath

from speccascade.inference import metrics
from speccascade.inputs import paths
from speccascade.report.choice import TEST
from speccascade.report.points import Point, Points
from speccascade.tasks import aggregate
from speccascade.tuning.batches import Fastest
from speccascade.tuning.choice import Decision, Hypothesis, MaxQualityLoss
from speccascade.workdir.files import write_json

Record = dict[str, Any]


def write(
    decision: Decision,
    points: Points,
    failed: list[str],
    in_batches: Mapping[int, Fastest] = types.MappingProxyType({}),
) -> tuple[str, Record]:
    """Returns the summary as Markdown, and all that it says as a JSON-ready record.

    Args:
      decision: of the validation split.
      points: of the test split.
      failed: a line for each job that failed; they are no candidates.
      in_batches: what is the fastest by batch size; may have none.
    """
    expert = points.expert(decision.temperature, TEST)
    settings = {"chosen": decision.chosen, "lossless": decision.lossless}
    test = {role: points.of(setting, TEST) for role, setting in settings.items()}
    held = {role: _measured(point, expert) for role, point in test.items() if point and expert}
    promise = decision.promise
    record = {
        "promise": {"of": promise.figure, "value": promise.value},
        "confidence": decision.confidence,
        "temperature": decision.temperature,
        "chosen": decision.chosen.fields(),
        "basis": decision.basis,
        "kept_on_test": _kept(decision, held.get("chosen")),
        "test": held,
        "lossless": decision.lossless.fields(),
        "hypotheses": [_hypothesis(h) for h in decision.hypotheses],
        "batch_sizes": {
            str(batch): {"setting": found.setting.fields(), "speedup": found.speedup}
            for batch, found in in_batches.items()
        },
        "rows": points.shared,
        "failed": failed,
    }
    lines = [
        f"**{str(promise).capitalize()}, with {100 * decision.confidence:g} % confidence, "
        f"temperature {decision.temperature:g}**",
        "",
        _choice(decision),
        _verdict(decision, record),
        *_figures(decision, held),
        *([] if decision.basis == "certified" else [_help(decision)]),
        "",
        *_table(decision),
        "",
        *_batches(in_batches),
        *_notes(decision),
        *(f"- {line}" for line in failed),
    ]
    return "\n".join(lines) + "\n", record


def save(workdir: str, text: str, record: Record) -> None:
    """Writes tune.md and tune.json."""
    workdir = paths.plain(workdir)
    (epath.Path(workdir) / "tune.md").write_text(text)
    write_json(os.path.join(workdir, "tune.json"), record)


def _measured(point: Point, expert: Point) -> Record:
    of = aggregate.statistic(point.aggregate)
    columns = expert.scores, point.scores
    loss = metrics.difference(of)
    speed = point.timing
    return {
        "examples": len(point.scores),
        "quality": point.quality,
        "expert_quality": expert.quality,
        "quality_loss": float(loss(*columns)),
        "quality_loss_ci": list(metrics.bootstrap(loss, *columns)),
        "speedup": speed.speedup if speed else None,
        "speedup_ci": list(speed.interval) if speed else None,
    }


def _figure(decision: Decision, measured: Record) -> tuple[float | None, list[float] | None]:
    name = "quality_loss" if isinstance(decision.promise, MaxQualityLoss) else "speedup"
    return measured[name], measured[f"{name}_ci"]


def _kept(decision: Decision, measured: Record | None) -> bool | None:
    if decision.basis is None or measured is None:
        return None
    value, _ = _figure(decision, measured)
    return None if value is None else decision.promise.kept(value)


def _choice(decision: Decision) -> str:
    named = f"Chosen: `{decision.chosen}`"
    if decision.basis == "certified":
        own = next(h for h in decision.hypotheses if decision.chosen in h.settings)
        limit = "at most" if isinstance(decision.promise, MaxQualityLoss) else "at least"
        return (
            f"{named}. On {own.examples} validation examples its {decision.promise.figure} is "
            f"{own.estimate:.3f}, and {limit} {own.bound:.3f} at the level of its test."
        )
    if decision.basis == "law":
        return f"{named}. Its law is the expert's: that promise needs no test."
    return (
        f"Nothing was certified, nothing is promised. {named}, the fastest whose quality is the "
        "expert's by its law."
    )


def _verdict(decision: Decision, record: Record) -> str:
    kept, measured = record["kept_on_test"], record["test"].get("chosen")
    if decision.basis is None:
        return ""
    if kept is None:
        return "Test: the chosen setting could not be measured there; nothing is known."
    value, interval = _figure(decision, measured)
    promise = decision.promise
    shown = f"{promise.figure} {value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
    if kept:
        return f"Test: {shown}. The promise held."
    if promise.kept(interval[0]) or promise.kept(interval[1]):
        return (
            f"Test: {shown}. The promise DID NOT HOLD on these examples, by no more than chance "
            "explains."
        )
    return f"Test: {shown}. The promise DID NOT HOLD, and chance does not explain by how much."


def _figures(decision: Decision, held: dict[str, Record]) -> list[str]:
    lines = []
    for role, name in (("chosen", "the chosen setting"), ("lossless", f"`{decision.lossless}`")):
        if role in held and not (role == "lossless" and decision.chosen == decision.lossless):
            own = held[role]
            speed = "not timed"
            if own["speedup"] is not None:
                low, high = own["speedup_ci"]
                speed = f"speed-up {own['speedup']:.2f} [{low:.2f}, {high:.2f}]"
            lines.append(
                f"Test, {name}: {speed}, quality {own['quality']:.3f}, the expert's "
                f"{own['expert_quality']:.3f}."
            )
    return lines


def _help(decision: Decision) -> str:
    """Returns why nothing faster or better was chosen, and what would help."""
    certified = sum(len(h.settings) for h in decision.hypotheses if h.certified)
    if certified:
        return f"{certified} other settings were certified; none of them is faster."
    nearest = decision.nearest
    if nearest is None:
        return "The sweep has no other setting."
    line = (
        f"No other setting was certified; nearest: `{nearest.settings[0]}`, "
        f"{decision.promise.figure} {nearest.estimate:.3f}, bound {nearest.bound:.3f}"
    )
    if nearest.wanted is None:
        return f"{line}: ask for no more than the bound, or sweep more settings."
    kind = "validation" if isinstance(decision.promise, MaxQualityLoss) else "timed"
    return (
        f"{line}: about {nearest.wanted} {kind} examples would certify it if that estimate stands."
    )


def _hypothesis(h: Hypothesis) -> Record:
    return {
        "settings": [str(setting) for setting in h.settings],
        "examples": h.examples,
        "estimate": h.estimate,
        "bound": metrics.finite(h.bound),
        "p_value": h.p_value,
        "level": h.level,
        "tested": h.tested,
        "certified": h.certified,
        "wanted": h.wanted,
    }


def _table(decision: Decision) -> list[str]:
    lines = [
        f"| settings | examples | {decision.promise.figure} | bound | p-value | needed | |",
        "|---|---|---|---|---|---|---|",
    ]
    for h in decision.hypotheses:
        names = "; ".join(str(setting) for setting in h.settings)
        outcome = "certified" if h.certified else "not certified" if h.tested else "not tested"
        lines.append(
            f"| {names} | {h.examples} | {h.estimate:.3f} | {h.bound:.3f} | {h.p_value:.2g} | "
            f"{h.level:.2g} | {outcome} |"
        )
    return lines


def _batches(in_batches: Mapping[int, Fastest]) -> list[str]:
    if not in_batches:
        return []
    rows = (
        f"| {batch} | {found.setting} | {found.speedup:.2f} |"
        for batch, found in in_batches.items()
    )
    return ["| batch | fastest that keeps the promise | speed-up |", "|---|---|---|", *rows, ""]


def _notes(decision: Decision) -> list[str]:
    percent = f"{100 * (1 - decision.confidence):g} %"
    notes = [
        f"- The probability that any setting is certified which breaks the promise is at most "
        f"{percent}, over draws of the validation examples. Settings that differ in alpha are "
        "tested from where the promise is easiest to keep, up to the first failure; the sequences "
        "share the error.",
    ]
    if isinstance(decision.promise, MaxQualityLoss):
        notes.append(
            "- Rows whose answers have one law, whatever their N and verifier, are one hypothesis. "
            "Means are tested exactly at any number of examples; corpus scores (BLEU) by a "
            "jackknifed t-test, which is approximate. The speed that decided among the certified "
            "is a measurement, not a promise."
        )
    else:
        notes.append(
            "- Speed-ups are tested by a jackknifed t-test over the timed examples: approximate, "
            "and about this machine as it was. The quality that decided among the certified is a "
            "measurement, not a promise."
        )
    notes.append("- On test: 95 % bootstrap intervals over examples, paired.")
    return notes
