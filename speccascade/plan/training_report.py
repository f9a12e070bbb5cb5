"""The plan of a training as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from speccascade.plan import report
from speccascade.plan.program import TooLarge
from speccascade.plan.training import Plan, Program, Training, whole
from speccascade.sharding.chips import GIB

# What each kind of collective has a device send, of the bytes that it yields there, over w devices.
_SENT = {
    "all-reduce": lambda w: 2 * (w - 1) / w,
    "all-gather": lambda w: (w - 1) / w,
    "reduce-scatter": lambda w: w - 1,
    "all-to-all": lambda w: (w - 1) / w,
}


def render(found: Plan) -> str:
    """Returns the Markdown of a plan."""
    sections = [_header(found), _memory(found), _verdict(found)]
    if isinstance(found.program, Program):
        sections.append(_exchanges(found.training, found.program))
    return "\n\n".join([*sections, _time(found)]) + "\n"


def together(pair: report.Plan, trainings: Sequence[Plan]) -> str:
    """Returns what all that an experiment does needs of a device, as Markdown.

    Args:
      pair: of reading prompts and decoding.
      trainings: of its models.
    """
    chip = pair.slice_.chip
    rows = [(f"training the {found.training.role}", found.total) for found in trainings]
    rows += [(name, size) for name, size in pair.by_program().items()]
    lines = [
        f"### All of it on {pair.slice_.name}\n",
        f"| per device | GiB | of {chip.hbm_bytes / GIB:.4g} |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {size / GIB:.3f} | {chip.share(size):.1%} |" for name, size in rows]
    return "\n".join(lines) + "\n"


def _header(found: Plan) -> str:
    t = found.training
    layout, batch = t.step.layout, t.batch
    chips = 1 if layout is None else layout.mesh.size
    mesh = "" if layout is None else ", " + _sizes(layout.mesh.shape)
    shapes = [batch[k].shape[1] for k in ("tokens", "prompt", "answer") if k in batch]
    longest = " and ".join(map(str, shapes))
    rows = len(batch["prompt_length"])
    parts = f" in {t.step.accumulate} parts" if t.step.accumulate > 1 else ""
    objective: Any = t.step.objective
    again = ", layers computed again" if objective.model.remat else ""
    taught = ", taught by the expert" if objective.teacher is not None else ""
    return (
        f"### Training the {t.role} of {t.name} on {t.slice_.name}: {chips} chips{mesh}\n\n"
        f"- batch {rows}{parts}, texts of {longest} tokens{again}{taught}"
    )


def _sizes(shape: Mapping[str, int]) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in shape.items())


def _memory(found: Plan) -> str:
    chip = found.training.slice_.chip
    rows = [
        ("weights", found.needs.weights),
        ("optimizer's state", found.needs.optimizer),
        ("gradients", found.needs.gradients),
    ]
    if found.needs.teacher:
        rows.append(("teacher's weights", found.needs.teacher))
    if isinstance(found.program, Program):
        rows.append(("temporaries, compiled: gradients", found.program.gradients))
        rows.append(("temporaries, compiled: update", found.program.update))
        rows.append(("program code", found.program.code))
    lines = [f"| per device | GiB | of {chip.hbm_bytes / GIB:.4g} |", "|---|---|---|"]
    for name, size in [*rows, ("**all**", found.total)]:
        lines.append(f"| {name} | {size / GIB:.3f} | {chip.share(size):.1%} |")
    if isinstance(found.program, Program):
        lines.append(
            "\nOf the temporaries only the larger counts. Compiled in "
            f"{found.program.seconds:.0f} s."
        )
    return "\n".join(lines)


def _verdict(found: Plan) -> str:
    room = found.training.slice_.chip.hbm_bytes
    if found.fits:
        return f"**Fits**, {1 - found.total / room:.1%} of a device's memory to spare."
    if isinstance(found.program, TooLarge):
        text = f"**Does not fit**: {found.program}."
        return f"{text} Raise train.accumulate, set train.remat, or put more devices along fsdp."
    over = (found.total - room) / GIB
    return (
        f"**Does not fit**: {over:.2f} GiB per device too much, activations not counted. Put more "
        "devices along fsdp or model."
    )


def _exchanges(training: Training, program: Program) -> str:
    """Groups the collectives of gradients by kind."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for one in program.collectives:
        times = training.step.accumulate if one.in_loop else 1
        counts[one.kind] += times
        sizes[one.kind] += times * one.bytes
    lines = ["| collective | in a step | MB that it yields |", "|---|---|---|"]
    lines += [f"| {kind} | {n} | {sizes[kind] / 1e6:,.1f} |" for kind, n in sorted(counts.items())]
    found = whole(training, program.collectives)
    told = "Weights are gathered along fsdp alone."
    if training.step.layout is None or training.step.layout.ways("fsdp") == 1:
        told = "No weights are gathered."
    if found:
        told = f"**{len(found)} gather weights that nothing asks for whole**: {found[0]}."
    return "\n".join([*lines, f"\n{told}"])


def _time(found: Plan) -> str:
    t, chip = found.training, found.training.slice_.chip
    layout = t.step.layout
    devices = 1 if layout is None else layout.mesh.size
    work = t.work
    seconds = work.ops / devices / chip.flops
    text = (
        f"A step has {work.tokens:,} tokens and {work.ops / 1e12:,.1f} TFLOP: at least "
        f"{seconds * 1e3:,.1f} ms at the published rate of {chip.name}"
    )
    if isinstance(found.program, Program):
        sent = _sent(t, found.program)
        text += f", and {sent * 1e3:,.1f} ms for what it exchanges"
        seconds = max(seconds, sent)
    hours = seconds * t.num_steps / 3600
    return (
        f"{text}. {t.num_steps:,} steps take {hours:,.2g} hours at least, {hours * devices:,.2g} "
        "chip hours."
    )


def _sent(training: Training, program: Program) -> float:
    """Returns the seconds in which a device's links carry what a step exchanges."""
    total = 0.0
    for one in program.collectives:
        ways = one.group or len(training.slice_.devices)
        times = training.step.accumulate if one.in_loop else 1
        share = _SENT.get(one.kind, lambda _: 1.0)(ways) if ways > 1 else 0.0
        total += times * share * one.bytes / training.slice_.bandwidth(ways)
    return total
