"""A plan as Markdown."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from speccascade.inference.formula import expected_tokens
from speccascade.plan.fit import Parts
from speccascade.plan.program import Program, TooLarge
from speccascade.plan.roofline import Act, Block
from speccascade.plan.subject import Subject
from speccascade.plan.topology import Topology
from speccascade.sharding.chips import GIB
from speccascade.sharding.hlo import Collective


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that was found out about a pair on a slice.

    Attributes:
      subject: the pair.
      slice_: the slice.
      mesh: devices along each axis.
      parts: a device's memory, by arithmetic.
      program: as compiled; the compiler's refusal; None where it was not asked.
      largest: the largest batch that fits, by arithmetic; 0 for none.
      largest_program: that batch's program, as `program`.
      block: the roofline.
      acceptance: for the time of a token.
    """

    subject: Subject
    slice_: Topology
    mesh: dict[str, int]
    parts: Parts
    program: Program | TooLarge | None
    largest: int
    largest_program: Program | TooLarge | None
    block: Block
    acceptance: float

    @property
    def total(self) -> int:
        """Bytes that are needed on a device."""
        match self.program:
            case Program() as program:
                more = max(program.temporaries, program.prefill_temporaries)
                return self.parts.arguments + more + program.code
            case TooLarge() as error:
                return max(self.parts.total, error.needed)
        return self.parts.total

    def by_program(self) -> dict[str, int]:
        """Returns the bytes that are needed on a device to read prompts, and to decode."""
        if not isinstance(self.program, Program):
            return {"reading prompts and decoding": self.total}
        kept = self.parts.arguments + self.program.code
        return {
            "reading prompts": kept + self.program.prefill_temporaries,
            "decoding": kept + self.program.temporaries,
        }

    @property
    def fits(self) -> bool:
        """Whether there is room for them."""
        refused = isinstance(self.program, TooLarge)
        return not refused and self.total <= self.slice_.chip.hbm_bytes


def render(plan: Plan, alternatives: Sequence[str]) -> str:
    """Returns the Markdown of a plan.

    Args:
      plan: what was found out.
      alternatives: flags that would make it fit; none where it does.
    """
    sections = [_header(plan), _memory(plan), _verdict(plan, alternatives)]
    if isinstance(plan.program, Program):
        sections += [_collectives(plan, plan.program), _streams(plan, plan.program)]
    return "\n\n".join([*sections, _roofline(plan)]) + "\n"


def _header(plan: Plan) -> str:
    s, chips = plan.subject, len(plan.slice_.devices)
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    return "\n".join(
        [
            f"### {s.name} on {plan.slice_.name}: {chips} chips, {mesh}\n",
            f"- batch {s.batch_size}, {plan.parts.rows} rows on a device; prompts of up to "
            f"{s.prompt_length} tokens, answers of up to {s.max_new_tokens}",
            f"- {s.setting}; {s.weights} weights",
        ]
    )


def _memory(plan: Plan) -> str:
    parts, program = plan.parts, plan.program
    rows = [(f"{role}'s weights", size) for role, size in parts.weights.items()]
    rows += [(f"{role}'s cache", size) for role, size in parts.caches.items()]
    rows.append(("rows and state", parts.state))
    if isinstance(program, Program):
        rows.append(("temporaries, compiled: reading prompts", program.prefill_temporaries))
        rows.append(("temporaries, compiled: decoding", program.temporaries))
        rows.append(("program code", program.code))
    else:
        rows.append(("temporaries, estimated", parts.temporaries))
    chip = plan.slice_.chip
    lines = [f"| per device | GiB | of {chip.hbm_bytes / GIB:.4g} |", "|---|---|---|"]
    for name, size in [*rows, ("**all**", plan.total)]:
        lines.append(f"| {name} | {size / GIB:.3f} | {chip.share(size):.1%} |")
    if isinstance(program, Program):
        lines.append(
            f"\nArguments: {parts.arguments / GIB:.3f} GiB by arithmetic, "
            f"{program.arguments / GIB:.3f} as the decode loop has them, less what only reading a "
            "prompt needs. Of the temporaries only the larger counts. "
            f"Caches: {program.aliased} of "
            f"{program.cached} arrays are overwritten in place. Compiled in "
            f"{program.seconds:.0f} s."
        )
    else:
        lines.append("\nBy arithmetic alone.")
    return "\n".join(lines)


def _verdict(plan: Plan, alternatives: Sequence[str]) -> str:
    hbm = plan.slice_.chip.hbm_bytes
    total = plan.total
    if not plan.fits:
        over = max(0, total - hbm) / GIB
        nearest = "; or ".join(alternatives) or "none found among the known slices"
        text = f"**Does not fit**: {over:.2f} GiB per device too much. Nearest: {nearest}."
    else:
        text = f"**Fits**, {1 - total / hbm:.1%} of a device's memory to spare."
    return f"{text} {_largest(plan)}".rstrip()


def _largest(plan: Plan) -> str:
    if not plan.largest:
        return ""
    text = f"Largest batch by arithmetic: {plan.largest}"
    match plan.largest_program:
        case Program() as program:
            return f"{text}; compiled, it takes {plan.slice_.chip.share(program.needed):.1%}."
        case TooLarge() as error:
            return f"{text}; the compiler does not take it ({error})."
    return f"{text}, not compiled."


def _collectives(plan: Plan, program: Program) -> str:
    """Groups the collectives by what they carry and by where they run."""
    n = plan.subject.setting.draft_length
    places = {1: "once", 2: "in each later draft"}
    kinds: Counter[tuple] = Counter()
    for c in program.collectives:
        if c.in_loop:
            arrays = ", ".join(f"{a.dtype}[{','.join(map(str, a.shape))}]" for a in c.arrays)
            kinds[c.kind, arrays, places.get(len(c.loops), "in a loop of its rule"), c.bytes] += 1
    lines = [
        "| collective | carries | in a block | count | bytes each |",
        "|---|---|---|---|---|",
    ]
    for (kind, arrays, place, size), count in sorted(kinds.items(), key=_by_bytes):
        lines.append(f"| {kind} | {arrays} | {place} | {count} | {size:,} |")
    total = sum(c.bytes * (n if len(c.loops) > 1 else 1) for c in program.collectives if c.in_loop)
    lines.append(f"\n{_axes(plan, program.collectives)} About {total / 1e6:.2f} MB per block.")
    return "\n".join(lines)


def _by_bytes(item) -> int:
    (_, _, _, size), count = item
    return -size * count


def _axes(plan: Plan, collectives: list[Collective]) -> str:
    """Says whether an axis of the vocabulary or of the caches' slots is exchanged."""
    s = plan.subject
    vocab = s.models["expert"].vocab_size
    sizes = {vocab, -(-vocab // plan.mesh.get("model", 1)), s.prompt_length, *plan.parts.slots}
    sizes -= {model.config.d_model for model in s.models.values()}  # a prompt may be as long
    found = [c for c in collectives if c.has_size(sizes)]
    if not found:
        return "None carries an axis of the vocabulary or of a cache."
    return f"**{len(found)} carry an axis of the vocabulary or of a cache**: {found[0]}."


def _streams(plan: Plan, program: Program) -> str:
    """Says what verification costs as compiled, beside the least that it could."""
    later = plan.block.drafts - 1
    hbm = chip = 0.0
    for depth, moved in enumerate(program.streams):
        times = 0 if depth == 0 else 1 if depth == 1 else later
        hbm, chip = hbm + times * moved.hbm / 1e6, chip + times * moved.chip / 1e6
    least = plan.block.verify.cost.hbm_bytes / 1e6
    return (
        f"Vocabulary-wide arrays in a block: {hbm:.1f} MB over HBM and {chip:.1f} MB within the "
        f"chip's own memory; {least:.1f} MB over HBM in the fewest passes, if none stayed on the "
        "chip."
    )


def _roofline(plan: Plan) -> str:
    b, s, chip = plan.block, plan.subject, plan.slice_.chip
    n = s.setting.draft_length
    lines = [
        "| act, per device | per block | GFLOP | HBM, GB | ICI, MB | ms | bound by |",
        "|---|---|---|---|---|---|---|",
        _row("draft, first token", 1, b.first_draft),
        *([_row("draft, each later one", b.drafts - 1, b.draft)] if b.drafts > 1 else []),
        _row(f"expert, {n + 1} tokens", 1, b.expert),
        _row("verification, all over HBM", 1, b.verify),
        _row("expert alone, 1 token", "-", b.expert_step),
    ]
    tokens = expected_tokens(plan.acceptance, n)
    seconds = b.per_token(plan.acceptance, n)
    alone = b.expert_step.time.total
    lines.append(
        f"\nAt the published rates of {chip.name} a block takes at least {b.total * 1e3:.2f} ms, "
        f"verification {b.verify.time.total / b.total:.2%} of it. At an acceptance of "
        f"{plan.acceptance:g} it gives {tokens:.2f} tokens: {seconds * 1e3:.2f} ms per token of a "
        f"row, {s.batch_size / seconds:,.0f} tokens/s in all, {alone / seconds:.2f} times the "
        "expert alone."
    )
    return "\n".join(lines)


def _row(name: str, times: int | str, act: Act) -> str:
    cost, time = act
    return (
        f"| {name} | {times} | {cost.ops / 1e9:.1f} | {cost.hbm_bytes / 1e9:.3f} | "
        f"{cost.ici_bytes / 1e6:.2f} | {time.total * 1e3:.3f} | {time.bound} |"
    )
