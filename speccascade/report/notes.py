"""What a reader of a report's tables must know."""

from speccascade.report.choice import CRITERIA, TEST, VALIDATION
from speccascade.report.points import Points

_UNTIMED = (
    "On test, with 95 % bootstrap intervals over examples. Nothing was timed "
    "(evaluate.timing.num_examples=0), so no setting is chosen by speed."
)


def is_timed(points: Points) -> bool:
    """Returns whether any setting was timed."""
    return any(point.timing for point in points.by_setting.values())


def about(points: Points) -> list[str]:
    """Returns how choices and figures of a report were made, a sentence or more each."""
    notes = _timed_notes(points) if is_timed(points) else [_UNTIMED]
    notes.append(
        "Compute: multiply-adds of both models' matrix products per generated token, over those of "
        "the expert's own decoding; every position that was scored counts, rejected ones too, the "
        "prompts do not."
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


def _timed_notes(points: Points) -> list[str]:
    notes = [f"{c.title}: {c.rule}." for c in CRITERIA]
    notes.append(
        "Chosen on validation, reported on test, with 95 % bootstrap intervals over examples, "
        'paired for differences and speed-ups; "not told apart" where the interval holds zero (for '
        "a speed-up, 1). Every method stands at the best of the draft lengths N that were measured "
        f"for it{_lone_lengths(points)}."
    )
    notes.append(
        "Speed-up: wall-clock per token of whole answers at batch 1, prefill included, against the "
        "expert's own decoding of the same prompts in the same process. The expert's row is its "
        "decoding timed twice: what differs from 1 there is noise. Over fewer than about twenty "
        "timed examples such intervals are too narrow."
    )
    return notes


def _lone_lengths(points: Points) -> str:
    """Returns which methods have one draft length where the sweep has several."""
    lengths: dict[str, set[int]] = {}
    for setting in points.settings():
        if setting.draft_length is not None:
            lengths.setdefault(setting.label, set()).add(setting.draft_length)
    lone = {label: n for label, (n, *more) in lengths.items() if not more}
    if not lone or len(set().union(*lengths.values())) == 1:
        return ""
    return f" (one alone for {', '.join(f'{label}: {n}' for label, n in lone.items())})"
