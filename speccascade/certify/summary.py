"""Verdicts for people: a small Markdown table and one sentence a setting."""

import math
from collections.abc import Sequence

from speccascade.certify.measured import Measured
from speccascade.certify.scoring import Scoring
from speccascade.certify.verdict import KEPT, UNTESTED, UNTOLD, WORSE, Speed, Verdict
from speccascade.tasks import aggregate

_NONE = "\N{EN DASH}"
_HEADINGS = ("answers", "samples", "quality", "loss", "at most", "speed-up", "acceptance length")


def write(
    before: Measured,
    verdicts: Sequence[Verdict],
    scoring: Scoring,
    promised: float,
    confidence: float,
    ordered: bool,
) -> str:
    """Returns the text; arguments as in `verdict.judge`."""
    percent = f"{100 * confidence:g} %"
    digits = 1 if scoring.full_score > 10 else 3
    told = _Words(before, promised, percent, digits)
    quality = float(aggregate.statistic(scoring.aggregate)(before.scores))
    lines = [
        f"**Quality ({scoring.what}) at most {promised:g} below that of `{before.name}`, "
        f"{percent} confidence, {len(before.ids)} prompts**",
        "",
        f"| {' | '.join(_HEADINGS)} | |",
        "|---" * (len(_HEADINGS) + 1) + "|",
        told.row(before, quality, [_NONE, _NONE, _NONE], "before"),
        *(told.verdict_row(verdict) for verdict in verdicts),
        "",
        *(told.sentence(verdict) for verdict in verdicts),
        "",
        *_notes(verdicts, scoring, percent, ordered),
    ]
    return "\n".join(lines) + "\n"


class _Words:
    """What all rows and sentences share."""

    def __init__(self, before: Measured, promised: float, percent: str, digits: int):
        self._before = before
        self._promised = promised
        self._percent = percent
        self._digits = digits

    def _figure(self, value: float) -> str:
        return f"{value:.{self._digits}f}" if math.isfinite(value) else _NONE

    def row(self, one: Measured, quality: float, middle: Sequence[str], outcome: str) -> str:
        accepted = _NONE if one.acceptance is None else f"{one.acceptance:.2f}"
        cells = [f"`{one.name}`", _samples(one), self._figure(quality), *middle, accepted, outcome]
        return f"| {' | '.join(cells)} |"

    def verdict_row(self, verdict: Verdict) -> str:
        middle = [self._figure(verdict.loss), self._figure(verdict.kept.bound), _NONE]
        if verdict.speed:
            middle[2] = _interval(verdict.speed)
        outcome = verdict.outcome
        if outcome == KEPT:
            outcome = f"loses at most {self._promised:g}"
        return self.row(verdict.after, verdict.quality, middle, outcome)

    def sentence(self, verdict: Verdict) -> str:
        size = len(self._before.ids)
        loss, most = self._figure(verdict.loss), self._figure(verdict.kept.bound)
        said = {
            KEPT: f"loses at most {self._promised:g} with {self._percent} confidence: its loss is "
            f"{loss}, and {most} could have been promised",
            WORSE: f"is worse: its loss is {loss}, with {self._percent} confidence at least "
            f"{self._figure(-verdict.worse.bound)}",
            UNTOLD: f"is not told apart at this sample size (n = {size}): its loss is {loss}, and "
            f"may be as much as {most}",
            UNTESTED: f"was not tested, as one before it failed: its loss is {loss}",
        }[verdict.outcome]
        return (
            f"- `{verdict.after.name}` {said}{self._more(verdict, size)}"
            f"{_averages(verdict.after)}{_faster(verdict.speed)}."
        )

    def _more(self, verdict: Verdict, size: int) -> str:
        if verdict.outcome in (KEPT, UNTESTED):
            return ""
        would, wanted = verdict.would
        if would == verdict.outcome:
            return ""
        if wanted is None:
            return "; no number of prompts like these would tell"
        shown = f"a loss of at most {self._promised:g}" if would == KEPT else "that it is worse"
        return f"; about {wanted - size:,} more prompts like these would show {shown}"


def _samples(one: Measured) -> str:
    fewest, most = one.samples
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def _averages(one: Measured) -> str:
    if one.samples == (1, 1):
        return ""
    return f"; a prompt's score averages {_samples(one)} samples"


def _interval(speed: Speed) -> str:
    low, high = speed.interval
    return f"{speed.estimate:.2f} [{low:.2f}, {high:.2f}]"


def _faster(speed: Speed | None) -> str:
    if speed is None:
        return ""
    return f"; it is {_interval(speed)} times as fast per {speed.per} ({speed.prompts} prompts)"


def _notes(
    verdicts: Sequence[Verdict], scoring: Scoring, percent: str, ordered: bool
) -> list[str]:
    notes = []
    if len(verdicts) > 1:
        how = (
            "they were tested in the order given, up to the first failure"
            if ordered
            else f"the {len(verdicts)} of them share the error (Holm), so any may be chosen"
        )
        notes.append(
            f"With {percent} confidence no setting that is said to lose at most so much loses "
            f"more: {how}; and with the same confidence none that is called worse is not."
        )
    paired = "Prompts are paired and taken for independent draws; samples for one are averaged"
    if scoring.aggregate == "mean":
        notes.append(f"{paired}. Means are tested by betting: valid at any number of prompts.")
    else:
        notes.append(
            f"{paired}. {scoring.aggregate} is tested by a jackknifed t-test that reckons with "
            "losses too rare to be met here: approximate."
        )
    if any(verdict.speed for verdict in verdicts):
        notes.append(
            "Speed-ups are of all answers together, with a jackknifed t-interval over prompts, "
            "each setting for itself: approximate, and about the machine as it was."
        )
    return [f"- {note}" for note in notes]
