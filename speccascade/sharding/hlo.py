"""What a compiled program says of itself: its collectives, and the inputs that it overwrites.

Reads the text of optimised HLO, `compiled.as_text()`, as XLA writes it for CPU and TPU alike.
Shapes in it are those of one device.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+[a-z0-9]*)\[([\d,<=]*)\]")
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) "
    rf"(?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\("
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_CALLS = re.compile(
    r"\b(body|condition|calls|to_apply|true_computation|false_computation|branch_computations|"
    r"called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\]|mesh\[(.*?)\] \{(.*?)\})")
_AXIS = re.compile(r"'(\w+)'(?::\(\d+\)(\d+))?")  # a part of an axis is 'name':(before)size


@dataclasses.dataclass(frozen=True)
class Array:
    """One array: its dtype as HLO names it ("f32", "bf16", "s32") and its shape on one device."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size; dtypes narrower than a byte count as packed."""
        width = 8 if self.dtype == "pred" else int(re.search(r"\d+", self.dtype)[0])
        return math.prod(self.shape) * width // 8 if width >= 8 else -(-math.prod(self.shape) // 2)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a compiled program.

    Attributes:
      kind: one of `KINDS`; the asynchronous forms count as one.
      arrays: what it yields on one device, more than one where XLA has merged several.
      group: devices that take part in one exchange; None where the text does not say.
      loops: the bodies of the `while` loops around it, outermost first; () outside of any.
      op_name: the JAX operation that it comes from ("jit(run)/while/body/...").
      name: the instruction's name.
    """

    kind: str
    arrays: tuple[Array, ...]
    group: int | None
    loops: tuple[str, ...]
    op_name: str
    name: str

    @property
    def in_loop(self) -> bool:
        """Whether it runs once per turn of some loop."""
        return bool(self.loops)

    @property
    def bytes(self) -> int:
        """The size of what it yields on one device."""
        return sum(array.bytes for array in self.arrays)

    def has_size(self, sizes: Iterable[int]) -> bool:
        """Returns whether an axis of what it carries has one of these sizes."""
        wanted = set(sizes)
        return any(wanted & set(array.shape) for array in self.arrays)

    def __str__(self) -> str:
        arrays = ", ".join(f"{a.dtype}[{','.join(map(str, a.shape))}]" for a in self.arrays)
        where = f"in {len(self.loops)} loops" if self.loops else "once"
        return f"{self.kind} {arrays} ({self.bytes} bytes) over {self.group} devices, {where}"


def collectives(text: str) -> list[Collective]:
    """Returns the collectives of a compiled program, in the order of its text."""
    found: list[tuple[str, re.Match[str], str]] = []
    callers: dict[str, tuple[str, str]] = {}
    computation = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            computation = match[1]
            continue
        for role, names in _CALLS.findall(line):
            for name in re.findall(r"[\w.\-]+", names):
                callers.setdefault(name, (computation, role))
        if match := _INSTRUCTION.match(line):
            found.append((computation, match, line))
    return [
        Collective(
            kind=match["kind"],
            arrays=_yielded(match["kind"], match["type"], bool(match["start"])),
            group=_group(line),
            loops=_loops(computation, callers),
            op_name=name[1] if (name := _OP_NAME.search(line)) else "",
            name=match["name"],
        )
        for computation, match, line in found
    ]


def aliased(text: str) -> list[Array]:
    """Returns the inputs whose memory the program reuses for its outputs (donated ones)."""
    head, _, _ = text.partition("\n")
    numbers = {int(n) for n in re.findall(r"\{[\d, ]*\}: \((\d+), ", head)}
    return [array for number, array in _parameters(text) if number in numbers]


def _parameters(text: str) -> list[tuple[int, Array]]:
    entry = text[text.index("\nENTRY ") :]
    found = re.findall(r"= (\S+) parameter\((\d+)\)", entry)
    return [(int(number), _arrays(kind)[0]) for kind, number in found]


def _arrays(text: str) -> tuple[Array, ...]:
    text = re.sub(r"\{[^}]*\}", "", text)  # layouts
    return tuple(
        Array(dtype, tuple(int(re.sub(r"\D", "", n)) for n in shape.split(",") if n))
        for dtype, shape in _ARRAY.findall(text)
        if dtype != "token"
    )


def _yielded(kind: str, text: str, start: bool) -> tuple[Array, ...]:
    arrays = _arrays(text)
    if not start or kind == "all-reduce":
        return arrays
    # The others' asynchronous forms yield (operands, results) and perhaps some counters.
    arrays = tuple(a for a in arrays if a.shape or kind != "collective-permute")
    return arrays[len(arrays) // 2 :]


def _group(line: str) -> int | None:
    if not (match := _GROUPS.search(line)):
        return None
    listed, size, mesh, axes = match.groups()
    if mesh is None:
        return int(size) if size else len(listed.split(","))
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh))
    return math.prod(int(part or sizes[name]) for name, part in _AXIS.findall(axes))


def _loops(computation: str, callers: dict[str, tuple[str, str]]) -> tuple[str, ...]:
    loops = []
    while computation in callers:
        caller, role = callers[computation]
        if role in ("body", "condition"):
            loops.append(computation)
        computation = caller
    return tuple(reversed(loops))
