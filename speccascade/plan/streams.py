"""How often a compiled TPU program streams vocabulary-wide arrays over its memory.

Reads optimised HLO, in which a layout with `S(1)` is that of an array kept in the chip's vector
memory: it costs no byte of HBM. Counted is what each instruction reads and writes of arrays whose
last axis, or the last two together (the chunks in which a token is drawn), is the vocabulary's; the
embedding and the head, whose first axis it is, are weights and not counted.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from speccascade.sharding.hlo import Array

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\](\{[^}]*\})?")
_CALLS = re.compile(r"\b(?:calls|to_apply)=%?([\w.\-]+)")
_RUNS = re.compile(
    r"\b(?:body|condition|to_apply|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)

# These move nothing, or what they move is counted where it starts.
_FREE = frozenset(
    "parameter constant get-tuple-element tuple bitcast while conditional call opt-barrier "
    "copy-done slice-done async-done".split()
)
_PARTIAL = ("gather", "dynamic-slice", "slice")
_ON_CHIP = "S(1)"


class Traffic(NamedTuple):
    """Bytes of vocabulary-wide arrays, on one device.

    Attributes:
      hbm: read from and written to HBM.
      chip: read from and written to the chip's own memory.
    """

    hbm: int
    chip: int


class _Value(NamedTuple):
    array: Array
    on_chip: bool


class _Instruction(NamedTuple):
    name: str
    kind: str
    values: list[_Value]
    operands: list[str]
    calls: list[str]
    runs: list[str]
    parameter: int | None


def traffic(text: str, vocab: int) -> list[Traffic]:
    """Returns the traffic of one turn of each loop that is nested as deep, outside of any first.

    Args:
      text: `compiled.as_text()`.
      vocab: token ids of a device.
    """
    computations = _computations(text)
    inner = {
        name for body in computations.values() for i in body if i.kind != "call" for name in i.calls
    }
    callers = {
        name: (caller, i.kind == "while")
        for caller, body in computations.items()
        for i in body
        for name in i.runs
    }
    found: list[Traffic] = []
    for name, body in computations.items():
        if name in inner:
            continue
        depth = _depth(name, callers)
        found += [Traffic(0, 0)] * (depth + 1 - len(found))
        hbm, chip = found[depth]
        for i in body:
            for size, on_chip in _moved(i, body, computations, vocab):
                hbm, chip = (hbm, chip + size) if on_chip else (hbm + size, chip)
        found[depth] = Traffic(hbm, chip)
    return found


def _depth(name: str, callers: dict[str, tuple[str, bool]]) -> int:
    depth = 0
    while name in callers:
        name, is_loop = callers[name]
        depth += is_loop
    return depth


def _computations(text: str) -> dict[str, list[_Instruction]]:
    found: dict[str, dict[str, _Instruction]] = {}
    body: dict[str, _Instruction] = {}
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            body = found[match[1]] = {}
        elif match := _INSTRUCTION.match(line):
            name, kind, op, rest = match.groups()
            arguments = rest.partition("), ")[0]
            operands = re.findall(r"%([\w.\-]+)", arguments)
            number = int(arguments.rstrip(")")) if op == "parameter" else None
            calls = _CALLS.findall(rest)
            runs = [n for names in _RUNS.findall(rest) for n in re.findall(r"[\w.\-]+", names)]
            body[name] = _Instruction(name, op, _values(kind), operands, calls, runs, number)
    return {name: list(body.values()) for name, body in found.items()}


def _values(text: str) -> list[_Value]:
    return [
        _Value(
            Array(dtype, tuple(int(n) for n in shape.split(",") if n)), _ON_CHIP in (layout or "")
        )
        for dtype, shape, layout in _ARRAY.findall(text)
    ]


def _moved(i: _Instruction, body, computations, vocab: int) -> Iterator[tuple[int, bool]]:
    """Yields the bytes that an instruction reads and writes, and whether on the chip."""
    if i.kind in _FREE or (i.kind == "custom-call" and not i.calls):
        return  # a custom call here puts slices that were fetched one by one side by side
    named = {other.name: other for other in body}
    reads = [named[name].values[0] for name in i.operands if name in named and named[name].values]
    writes = i.values
    if i.kind in ("copy-start", "slice-start"):
        # They yield destination and source, in either order, and a counter.
        (source,) = reads[:1]
        others = [v for v in writes if v.on_chip != source.on_chip]
        moved = [*others[:1], others[0]._replace(on_chip=source.on_chip)] if others else []
        yield from ((v.array.bytes, v.on_chip) for v in moved if _is_wide(v.array, vocab))
        return
    inside = computations.get(i.calls[0], []) if i.kind == "fusion" and i.calls else []
    for number, value in enumerate(reads):
        if _is_wide(value.array, vocab):
            yield _read(i, inside, number, value), value.on_chip
    for value in writes:
        if _is_wide(value.array, vocab):
            yield _written(i, named, inside, value), value.on_chip


def _read(i: _Instruction, inside: list[_Instruction], number: int, value: _Value) -> int:
    """Returns the bytes of an operand that are read: of a gather's, only what it takes."""
    users = _users(inside, number) if inside else [(i, number)]
    if users and all(user.kind in _PARTIAL for user, _ in users):
        return sum(user.values[0].array.bytes for user, _ in users)
    if users and all((user.kind, place) == ("dynamic-update-slice", 0) for user, place in users):
        return 0  # overwritten in place
    return value.array.bytes


def _written(i: _Instruction, named, inside: list[_Instruction], value: _Value) -> int:
    """Returns the bytes of a result that are written: of an update in place, only that."""
    scope = {other.name: other for other in inside} or named
    updates = [i] if not inside else inside
    for u in updates:
        if u.kind == "dynamic-update-slice" and u.values[0].array == value.array:
            return scope[u.operands[1]].values[0].array.bytes
    return value.array.bytes


def _users(inside: list[_Instruction], number: int) -> list[tuple[_Instruction, int]]:
    """Returns what uses a fused computation's parameter and where, seen through bitcasts."""
    found, frontier = [], {i.name for i in inside if i.parameter == number}
    while frontier:
        using = [
            (i, place) for i in inside for place, name in enumerate(i.operands) if name in frontier
        ]
        found += [(i, place) for i, place in using if i.kind != "bitcast"]
        frontier = {i.name for i, _ in using if i.kind == "bitcast"}
    return found


def _is_wide(array: Array, vocab: int) -> bool:
    if not array.shape:
        return False
    last = array.shape[-1]
    chunked = math.prod(array.shape[-2:]) if len(array.shape) > 2 else 0
    is_chunks = last & (last - 1) == 0 and vocab <= chunked < vocab + last
    return last == vocab or is_chunks
