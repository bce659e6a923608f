"""The collectives of a compiled program and their bytes, loops multiplied out.

Turns the text of optimized HLO into how often each kind of collective runs in a step,
over how many devices and with how many bytes. It refuses to know what they are for.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_ITEM_BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2", "s4", "u4"), 1),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
}
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"\b(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"\bbranch_computations={([^}]*)}")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":{"n":"(\d+)"')
_PLACE = re.compile(r"\bindex=(\d+)")
_GROUPS = re.compile(r"\breplica_groups={{([\d,]*)}")
_IOTA_GROUPS = re.compile(r"\breplica_groups=\[\d+,(\d+)\]<=")
_MESH_GROUPS = re.compile(r"\breplica_groups=mesh\[([^\]]*)\][^{]*{([^}]*)}")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_AXIS = re.compile(r"'(\w+)'=(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of one kind over as many devices, in one step of one device.

    Attributes:
        kind: Name of XLA's operation.
        devices: How many of them exchange with each other; 0 where pairs are listed.
        count: How often it runs.
        bytes: Of all results together, on each device.
    """

    kind: str
    devices: int
    count: int
    bytes: int


def collectives_of(hlo: str, *, unknown_trips: Sequence[int] = ()) -> list[Collective]:
    """Return the collectives of optimized HLO, most bytes first.

    Args:
        hlo: What `compiled.as_text()` returns.
        unknown_trips: How often a loop runs whose end the program computes, at most;
            then one in such a loop, and so on. Once, where nothing is said.
    """
    computations = _computations(hlo)
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    sizes: collections.Counter[tuple[str, int]] = collections.Counter()

    def walk(name: str, times: int, unknown: Sequence[int], counted: set[str]) -> None:
        for instruction in computations.get(name, _NOTHING).instructions:
            kind = instruction.operation.removesuffix("-done")
            # a start gives buffers too, its end the result alone
            if kind in KINDS and _is_new(instruction, counted):
                key = kind, _group_size(computations[name], instruction)
                counts[key] += times
                sizes[key] += times * _bytes(instruction.type)
            inside = counted if instruction.operation == "fusion" else set()
            for called, trips in _calls(instruction, computations):
                if trips is None:
                    walk(called, times * (*unknown, 1)[0], unknown[1:], inside)
                else:
                    walk(called, times * trips, unknown, inside)

    entry = next((n for n, c in computations.items() if c.is_entry), "")
    walk(entry, 1, unknown_trips, set())
    found = [
        Collective(kind=key[0], devices=key[1], count=counts[key], bytes=sizes[key])
        for key in counts
    ]
    return sorted(found, key=lambda c: (-c.bytes, c.kind, c.devices))


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    operation: str
    rest: str  # operands and attributes


@dataclasses.dataclass(frozen=True)
class _Computation:
    is_entry: bool
    instructions: list[_Instruction]

    def named(self, name: str) -> _Instruction | None:
        """Return the instruction of a name, None where there is none."""
        return next((i for i in self.instructions if i.name == name), None)

    def operands(self, instruction: _Instruction) -> list[_Instruction]:
        """Return what an instruction reads; a stranger stands for what is missing."""
        names = re.findall(r"%([\w.\-]+)", instruction.rest.split(")", 1)[0])
        return [self.named(name) or _Instruction(name, "", "", "") for name in names]


_NOTHING = _Computation(False, [])
_SCATTERED = "all-reduce-scatter"  # libtpu 0.0.42's name of such a fusion


def _computations(hlo: str) -> dict[str, _Computation]:
    found: dict[str, _Computation] = {}
    current = _NOTHING
    for line in hlo.splitlines():
        if head := _COMPUTATION.match(line):
            current = _Computation(bool(head[1]), [])
            found[head[2]] = current
        elif (match := _INSTRUCTION.match(line)) and current is not _NOTHING:
            current.instructions.append(_Instruction(*match.groups()))
    return {
        name: _as_scattered(c) if name.startswith(_SCATTERED) else c
        for name, c in found.items()
    }


def _as_scattered(computation: _Computation) -> _Computation:
    """Return a sum of which each device keeps a slice as the reduce-scatter it is.

    libtpu runs the two instructions as one.
    """
    kept = computation.instructions[-1].type
    return dataclasses.replace(
        computation,
        instructions=[
            dataclasses.replace(i, type=kept, operation="reduce-scatter")
            if i.operation == "all-reduce"
            else i
            for i in computation.instructions
        ],
    )


def _is_new(instruction: _Instruction, counted: set[str]) -> bool:
    """Return whether no other part of the same collective has been counted.

    A TPU runs a collective beside products: one fusion starts it, others that compute
    go on with it and one ends it. Each holds it whole, under one channel.
    """
    channel = _CHANNEL.search(instruction.rest)
    if channel is None:
        return True
    is_new = channel[1] not in counted
    counted.add(channel[1])
    return is_new


def _calls(
    instruction: _Instruction, computations: dict[str, _Computation]
) -> Iterator[tuple[str, int | None]]:
    """Yield the computations that an instruction runs, and how often if it is known.

    Of the branches of a conditional all are counted: which runs is not known.
    """
    if instruction.operation == "while":
        if body := _BODY.search(instruction.rest):
            yield body[1], _trips(instruction, computations)
        return
    if instruction.operation in ("async-done", "async-update"):
        return  # its start has called it
    for called in _CALLED.findall(instruction.rest):
        yield called, 1
    if branches := _BRANCHES.search(instruction.rest):
        for name in branches[1].split(","):
            yield name.strip().lstrip("%"), 1


def _trips(loop: _Instruction, computations: dict[str, _Computation]) -> int | None:
    """Return how often a loop runs; None where it is computed.

    The CPU's compiler says so. The TPU's compares a counter from 0 with a constant, and
    counts by two where it has unrolled the loop once.
    """
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    condition = _CONDITION.search(loop.rest)
    if condition is None or condition[1] not in computations:
        return None
    compare = computations[condition[1]].instructions[-1]
    if compare.operation != "compare" or "direction=LT" not in compare.rest:
        return None
    compared = computations[condition[1]].operands(compare)
    end = next(filter(None, map(_constant, compared)), None)
    return end and -(-end // _step(loop, compared, computations))


def _step(
    loop: _Instruction,
    compared: Sequence[_Instruction],
    computations: dict[str, _Computation],
) -> int:
    """Return what a loop's body adds to the counter that its condition compares."""
    place = next(filter(None, (_PLACE.search(i.rest) for i in compared)), None)
    body = _BODY.search(loop.rest)
    if place is None or body is None or body[1] not in computations:
        return 1
    results = computations[body[1]].operands(computations[body[1]].instructions[-1])
    if int(place[1]) >= len(results) or results[int(place[1])].operation != "add":
        return 1
    added = computations[body[1]].operands(results[int(place[1])])
    return next(filter(None, map(_constant, added)), 1)


def _constant(instruction: _Instruction) -> int | None:
    """Return the value of a whole number's constant, None of anything else."""
    value = instruction.rest.split(")", 1)[0]
    is_number = instruction.operation == "constant" and value.isdecimal()
    return int(value) if is_number else None


def _group_size(computation: _Computation, instruction: _Instruction) -> int:
    """Return how many devices take part in each group of a collective."""
    rest = instruction.rest
    if instruction.operation.endswith("-done"):
        start = computation.named(rest.split(")", 1)[0].split()[-1].lstrip("%"))
        rest = start.rest if start is not None else rest
    if groups := _GROUPS.search(rest):
        return groups[1].count(",") + 1
    if iota := _IOTA_GROUPS.search(rest):
        return int(iota[1])
    if mesh := _MESH_GROUPS.search(rest):
        sizes = dict(_AXIS.findall(mesh[1]))
        return math.prod(
            int(sizes.get(axis, 1)) for axis in re.findall(r"\w+", mesh[2])
        )
    return 0


def _bytes(type_text: str) -> int:
    """Return the bytes of an array's or a tuple's type."""
    return sum(
        _ITEM_BYTES.get(dtype, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for dtype, dims in _ARRAY.findall(_without_layouts(type_text))
    )


def _without_layouts(text: str) -> str:
    return re.sub(r"{[^}]*}|/\*[^*]*\*/", "", text)
