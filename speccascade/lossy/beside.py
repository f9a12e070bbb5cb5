"""Behind `scripts/lossy_modes.py --workdir`: each lossy mode beside lossless rivals as fast as it.

The rivals of a mode are the rules measured at its temperature and draft length: of each, the
setting with the fewest tokens per expert call that are no less than the mode's.
"""

from collections import defaultdict

from speccascade import report
from speccascade.errors import UserError
from speccascade.inference.methods import KERNEL
from speccascade.inference.setting import Setting
from speccascade.report.choice import TEST
from speccascade.report.comparison import compare, name
from speccascade.report.points import Point, Points


def table(workdir: str) -> str:
    """Returns the table, in Markdown, of the test split.

    Args:
      workdir: of scripts/evaluate.py.

    Raises:
      UserError: no kernel was measured there.
    """
    points = report.points_of(workdir)
    modes = [s for s in points.settings() if s.method is KERNEL and points.of(s, TEST)]
    if not modes:
        raise UserError(
            f"{workdir} has no row of a kernel on the test split; measure configs/lossy_modes.py"
        )
    heads = ["mode", "T", "tokens per call", "quality", "rivals: tokens per call, quality, verdict"]
    rows = [heads, ["---"] * len(heads)]
    for temperature in sorted({s.temperature for s in modes}, reverse=True):
        expert = points.expert(temperature, TEST)
        if expert is not None:
            rows.append(["the expert", f"{temperature:g}", "1.00", f"{expert.quality:.3f}", ""])
        for mode in (s for s in modes if s.temperature == temperature):
            own = points.of(mode, TEST)
            told = [_told(own, rival) for rival in rivals(points, mode)]
            cells = [name(mode), f"{temperature:g}", f"{_tokens(own):.2f}", f"{own.quality:.3f}"]
            rows.append([*cells, "; ".join(told) or "none as fast"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rivals(points: Points, mode: Setting) -> list[Point]:
    """Returns of each rule the slowest setting that emits as many tokens per expert call."""
    least = _tokens(points.of(mode, TEST))
    found = defaultdict(list)
    for setting in points.settings():
        shape = setting.temperature, setting.draft_length, setting.drafting
        if setting.method.has_rule and shape == (
            mode.temperature,
            mode.draft_length,
            mode.drafting,
        ):
            point = points.of(setting, TEST)
            if point is not None and _tokens(point) >= least:
                found[setting.label].append(point)
    return [min(each, key=_tokens) for each in found.values()]


def _tokens(point: Point) -> float:
    return point.rates["tokens_per_expert_call"]


def _told(own: Point, rival: Point) -> str:
    verdict = compare("", own, rival).quality_verdict
    return f"{name(rival.setting)}: {_tokens(rival):.2f}, {rival.quality:.3f}, mode {verdict}"
