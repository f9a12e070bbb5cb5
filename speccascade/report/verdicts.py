"""Which comparisons a report makes, and what it says of them in words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from speccascade.report.choice import CRITERIA, choose, complete_temperatures
from speccascade.report.comparison import Comparison, against_lossless, matched
from speccascade.report.points import Points

TOKEN_RULE = "token_v3"
LOSSY = ("lossy", "lenient")
TRUNCATED = ("spec, expert top_k", "spec, expert top_p", "spec, expert min_p")


def lossless_section(points: Points) -> tuple[list[str], list[Comparison]]:
    """Returns lines that set each method beside lossless decoding, and the comparisons."""
    lines, made = [], []
    for temperature in complete_temperatures(points):
        for criterion in CRITERIA:
            found = against_lossless(points, choose(points, temperature, criterion))
            if found:
                lines += ["", f"**{found[0].question}**", ""] + [f"- {c}" for c in found]
                made += found
    return lines, made


def question_section(points: Points) -> tuple[list[str], list[str], list[Comparison]]:
    """Answers whether the token rule beats its rivals.

    Returns:
      A line per group of rivals and temperature, lines with every comparison, and these.
    """
    answers, lines, made = [], [], []
    groups = {
        "lossless speculative decoding": ("spec",),
        "lossy speculative decoding": LOSSY,
        "the truncated expert": TRUNCATED,
    }
    for temperature in complete_temperatures(points):
        there = {s.label for s in points.settings() if s.temperature == temperature}
        if TOKEN_RULE not in there:
            continue
        for title, labels in groups.items():
            head = f"{TOKEN_RULE} and {title}, temperature {temperature:g}"
            if temperature == 0 and "spec" not in labels:
                answers.append(f"- {head}: greedy, that is lossless speculative decoding.")
                continue
            rivals = [label for label in labels if label in there]
            if not rivals:
                answers.append(f"- {head}: not measured.")
                continue
            found, impossible = matched(points, temperature, TOKEN_RULE, rivals)
            answers.append(f"- {head}: {_summary(found, len(impossible))}")
            lines += ["", f"**{head}**", ""]
            lines += [f"- {c.question}: {c}" for c in found] + [f"- {line}" for line in impossible]
            made += found
    return answers, lines, made


def _summary(found: Sequence[Comparison], impossible: int) -> str:
    """Returns how often the token rule won, in the quantity that was not matched."""
    parts = []
    for what, gain, loss, verdicts in (
        ("latency", "better", "worse", [c.quality_verdict for c in found if _by_latency(c)]),
        ("quality", "faster", "slower", [c.speed_verdict for c in found if not _by_latency(c)]),
    ):
        counts = Counter(verdict for verdict in verdicts if verdict is not None)
        if counts:
            parts.append(
                f"at matched {what} {gain} in {counts[gain]}, {loss} in {counts[loss]}, not told "
                f"apart in {counts['not told apart']} of {sum(counts.values())} comparisons"
            )
    if impossible:
        parts.append(f"in {impossible} more none of its settings is as fast, or as good")
    if not parts:
        return "no comparison, since neither criterion admits a setting of that rival."
    return "; ".join(parts) + "."


def _by_latency(comparison: Comparison) -> bool:
    return comparison.question.endswith("latency")


def record(comparison: Comparison) -> dict[str, Any]:
    """Returns every figure of a comparison."""
    nobody = (None, None)
    ours, rival = comparison.ours.setting, comparison.rival.setting
    ratio = comparison.ratio_interval or nobody
    timing = comparison.ours.timing
    return {
        "question": comparison.question,
        "temperature": ours.temperature,
        "method": ours.label,
        "chosen": ours.choices,
        "against": rival.label,
        "against_chosen": rival.choices,
        "num_examples": len(comparison.ours.scores),
        "difference": comparison.difference,
        "difference_low": comparison.difference_interval[0],
        "difference_high": comparison.difference_interval[1],
        "quality_verdict": comparison.quality_verdict,
        "num_timed": len(timing.ms) if comparison.ratio is not None else None,
        "speed_ratio": comparison.ratio,
        "speed_ratio_low": ratio[0],
        "speed_ratio_high": ratio[1],
        "speed_verdict": comparison.speed_verdict,
    }
