"""A plan in words and tables, for a person.

Turns a `Plan`, or an estimate alone, into lines. It refuses to compute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from trainer.model.memory import DeviceBytes
from trainer.tasks.console import Screen
from trainer.tasks.planning.collectives import Collective
from trainer.tasks.planning.plan import Largest, Plan
from trainer.tasks.planning.search import Change

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


def show(screen: Screen, plan: Plan) -> None:
    """Show a plan on the screen."""
    facts: dict[str, object] = dict(plan.subject)
    facts["found"] = plan.source.replace("[", "\\[")  # rich reads brackets as style
    facts["fits"] = verdict(plan.fits, plan.needed.total, plan.limit)
    screen.facts("plan", facts)
    screen.facts("bytes a device", by_purpose(plan.needed, plan.limit))
    screen.facts(
        "in a step",
        {
            "FLOPs": f"{plan.flops_per_step:.4g} on all devices",
            **_collectives(plan.collectives),
        },
    )
    if plan.largest is not None:
        screen.facts("largest that fits", largest_steps(plan.largest))
    if not plan.fits:
        screen.facts("what to change", {c.words: told(c) for c in plan.advice})
    screen.line("\nshards")
    screen.line(str(plan.shards))


def verdict(fits: bool, total: int, limit: int | None) -> str:
    """Return whether it fits, with both numbers."""
    if limit is None:
        return f"nobody knows: {size(total)} a device, whose memory is not known"
    word = "yes" if fits else "no"
    return f"{word}: {size(total)} of {size(limit)} a device"


def by_purpose(needed: DeviceBytes, limit: int | None) -> dict[str, str]:
    """Return the bytes by what they are for, and what stays free."""
    rows = {name: size(n) for name, n in dataclasses.asdict(needed).items()}
    if limit is not None:
        rows["headroom"] = size(limit - needed.total)
    return rows


def largest_steps(largest: Largest) -> dict[str, str]:
    """Return the largest steps; a size of 0 says that none fits."""
    sizes = {
        "microbatch_size": (largest.microbatch_size, "of the sequences above"),
        "sequence_length": (largest.sequence_length, "in the microbatch above"),
    }
    return {
        key: f"{count:,} {of}, {largest.source}" if count else f"none, {largest.source}"
        for key, (count, of) in sizes.items()
    }


def told(change: Change) -> str:
    """Return what a change gives."""
    return f"{size(change.total)} a device, {'fits' if change.fits else 'not enough'}"


def size(count: int) -> str:
    """Return bytes in a unit that suits them."""
    for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
        if abs(count) >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} B"


def _collectives(found: Sequence[Collective]) -> dict[str, str]:
    if not found:
        return {"collectives": "none"}
    return {
        f"{c.kind} over {c.devices}" if c.devices else c.kind: f"{c.count:,} times, "
        f"{size(c.bytes)}"
        for c in found
    }
