"""Ours beside another library's: the same weights, prompts and N, in turn, greedy, at batch 1."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from speccascade.benchmark import clock, decoding, steps, table
from speccascade.benchmark.clock import Measured, Timed
from speccascade.benchmark.peer import Method, counterpart
from speccascade.benchmark.progress import Progress
from speccascade.benchmark.size import Size, cost
from speccascade.benchmark.subject import Case, Subject
from speccascade.inference import metrics
from speccascade.inference.methods import DRAFTER

_COLUMNS = ("method", "ours, tokens/s", "Hugging Face's, tokens/s", "ratio", "same texts")
OURS, THEIRS = "ours", "Hugging Face's"


class Way(NamedTuple):
    """A method of the other library; `agreement` of a synthetic pair's drafter where it drafts."""

    method: Method
    agreement: float | None

    def __str__(self) -> str:
        return str(self.method)


@dataclasses.dataclass(frozen=True)
class Found:
    """What one way of decoding took and wrote, prompt by prompt."""

    parts: Sequence[Measured]

    @property
    def texts(self) -> list[list[int]]:
        """The answers' token ids."""
        return [part.result for part in self.parts]

    @property
    def tokens_per_second(self) -> float:
        """Of all prompts together, by their median times."""
        return sum(map(len, self.texts)) / sum(part.seconds for part in self.parts)

    @property
    def seconds_per_token(self) -> np.ndarray:
        """By prompt and trial."""
        return np.array([np.array(p.times) / max(len(p.result), 1) for p in self.parts])


def ratio(ours: Found, theirs: Found) -> tuple[float, float, float]:
    """Returns how much faster ours are per token, with a bootstrap interval.

    It is the median over prompts and trials: each compares two runs of one prompt in one trial.
    """
    pairs = (theirs.seconds_per_token / ours.seconds_per_token).ravel()
    interval = metrics.bootstrap(lambda drawn: np.median(drawn, axis=-1), pairs)
    return float(np.median(pairs)), *interval


def run(
    subject: Subject, cases: Sequence[Case], wanted: Size, progress: Progress, deadline: float
) -> None:
    """Measures and says the table.

    Both sides read the prompt within the time that counts, and write up to the same length.

    Args:
      subject: the pair.
      cases: what is decoded; the drafter alone is left out.
      wanted: of each, in batches of one prompt; less where time is short.
      progress: takes the lines.
      deadline: what `progress.elapsed` should be at the end.

    Raises:
      UserError: the other library has no such models.
    """
    from speccascade.benchmark import hugging_face  # torch, which need not be installed

    # Rows that are compared with the other's best come when that is known.
    cases = [c for c in cases if c.setting.method is not DRAFTER]
    cases = sorted(cases, key=lambda c: counterpart(c.setting) is None)
    ways = {c: _way(c) for c in cases}
    progress.show(0.0, "handing the weights over")
    other = hugging_face.HuggingFace(subject.models, subject.params, subject.stop_table)
    ours = {c: decoding.prepare_with_prompts(subject, c, wanted.batches) for c in cases}

    def theirs(way: Way, i: int, most: int) -> Timed:
        def decode(tokens):
            return other.decode(subject.requests[i].prompt, tokens, *way)

        room = min(most, subject.requests[i].max_new_tokens)
        return Timed(lambda: decode(2), lambda: None, lambda _: decode(room), lambda found: found)

    pass_seconds = _pass_seconds(subject)
    sides = {c: 1 if way is None else 2 for c, way in ways.items()}
    per_token = pass_seconds * sum(cost(c.setting) * n for c, n in sides.items())
    warm: dict[tuple, Timed] = {(OURS, c): found[0](1) for c, found in ours.items()}
    warm |= {(THEIRS, way): theirs(way, 0, 1) for way in ways.values() if way is not None}
    clock.warm(warm, progress, per_token * wanted.work)
    size = wanted.fitted(deadline - progress.elapsed, per_token)
    progress.say(
        f"Greedy, batch 1, beside {hugging_face.VERSIONS}: "
        f"{size.told(1, subject.prompt_slots, wanted)}; times with the prompt.\n"
    )
    calls: dict[tuple, Timed] = {}
    for c, way in ways.items():
        for i in range(size.batches):
            one = ours[c][i](size.tokens)
            calls[OURS, c, i] = one._replace(keep=partial(_first, one.keep))
        for i in range(size.batches if way is not None else 0):
            calls[THEIRS, way, i] = theirs(way, i, size.tokens)
    guess = size.tokens * pass_seconds
    known = clock.measure(calls, size.trials, lambda name: guess, progress, deadline)
    trials = _say(known, ways, size.batches, progress)
    progress.say(f"\n{wanted.told_trials(trials)}\n")


def _first(keep: Callable[[Any], Any], state: Any) -> Any:
    return keep(state)[0]


def _way(case: Case) -> Way | None:
    """Returns what the other library is asked for, None where it has no counterpart."""
    method = counterpart(case.setting)
    if method is None:
        return None
    return Way(method, case.agreement if method.by == "drafter" else None)


def _pass_seconds(subject: Subject) -> float:
    room = subject.max_new_tokens
    expert = subject.models["expert"], subject.params["expert"]
    return steps.seconds(
        *expert,
        batch=1,
        tokens=1,
        position=subject.prompt_slots,
        slots=subject.prompt_slots + room + 2,
    )


def _say(
    known: Iterable[tuple[tuple, Measured]],
    ways: Mapping[Case, Way | None],
    num_prompts: int,
    progress: Progress,
) -> int:
    """Says each row as soon as it is known, and then the best; returns the number of trials."""
    progress.say(table.head(_COLUMNS))
    parts: dict[Case | Way, list[Measured]] = {}
    found: dict[Case | Way, Found] = {}
    for (_, name, _), measured in known:
        parts.setdefault(name, []).append(measured)
        if len(parts[name]) < num_prompts:
            continue
        found[name] = Found(parts[name])
        for c, way in ways.items():
            if name in (c, way) and c in found and (way is None or way in found):
                progress.say(table.line(_row(c, way, found)))
    same_law = [c for c, way in ways.items() if way is not None]
    for agreement in dict.fromkeys(c.agreement for c in ways if c.agreement is not None) or (None,):
        mine = [c for c in same_law if c.agreement in (agreement, None)]
        best = max(mine, key=lambda c: found[c].tokens_per_second)
        other = _best(found, agreement)
        where = "" if agreement is None else f" at agreement {agreement:g}"
        progress.say(
            f"\nOur best with the expert's text{where} ({best}) over Hugging Face's best "
            f"({other}): {_shown(ratio(found[best], found[other]))}"
        )
    return len(measured.times)


def _row(case: Case, way: Way | None, found: Mapping[Case | Way, Found]) -> list[str]:
    other = way or _best(found, case.agreement)
    ours, theirs = found[case], found[other]
    same = np.mean([a == b for a, b in zip(ours.texts, theirs.texts, strict=True)])
    return [
        str(case),
        f"{ours.tokens_per_second:.1f}",
        f"{theirs.tokens_per_second:.1f} ({other}{'' if way else ', its best'})",
        _shown(ratio(ours, theirs)),
        f"{same:.0%}",
    ]


def _best(found: Mapping[Case | Way, Found], agreement: float | None) -> Way:
    """Returns the other library's fastest way with a drafter of an agreement, or without one."""
    there = [w for w in found if isinstance(w, Way) and w.agreement in (agreement, None)]
    return max(there, key=lambda way: found[way].tokens_per_second)


def _shown(value: tuple[float, float, float]) -> str:
    middle, low, high = value
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
