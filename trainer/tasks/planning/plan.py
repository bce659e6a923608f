"""A plan: everything that `task=plan` tells, as one value.

Turns it into the one JSON object that programs read. How it was found, and what a
person sees of it, is the subject of its neighbours.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from gemma.layout import LayoutTable
from trainer.model.memory import DeviceBytes
from trainer.tasks.planning.collectives import Collective
from trainer.tasks.planning.search import Change

_LAYER = re.compile(r"decoder_block_\d+/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Largest:
    """The largest step that fits, one dim at a time.

    Attributes:
        microbatch_size: Sequences per forward, of the length asked for.
        sequence_length: Tokens, in microbatches of the size asked for.
        source: `estimated` or `compiled`.
    """

    microbatch_size: int
    sequence_length: int
    source: str = "estimated"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a step needs of each device, and whether that is there.

    Attributes:
        subject: What is planned: model, step and chips, in words by label.
        source: How the bytes were found, in words.
        needed: Bytes on each device.
        limit: Bytes that a program may use of each; None where nobody knows.
        fits: Whether the one is within the other, and the compiler agrees.
        flops_per_step: What must be computed, on all devices, where every position has
            a loss.
        collectives: Of a step, on each device.
        shards: Where every variable lies.
        largest: Step that fits; None where the memory is not known.
        advice: What to change where it does not fit.
    """

    subject: dict[str, str]
    source: str
    needed: DeviceBytes
    limit: int | None
    fits: bool
    flops_per_step: int
    collectives: list[Collective]
    shards: LayoutTable
    largest: Largest | None
    advice: list[Change]

    @property
    def headroom(self) -> int | None:
        """Bytes of a device that stay free; negative where some are missing."""
        return None if self.limit is None else self.limit - self.needed.total

    def to_json(self) -> str:
        """Return the plan as one JSON object."""
        needed = dataclasses.asdict(self.needed)
        return json.dumps(
            {
                "fits": self.fits,
                "total_bytes_per_device": self.needed.total,
                "bytes_per_device": needed | {"headroom": self.headroom},
                "flops_per_step": self.flops_per_step,
                "collectives": [dataclasses.asdict(c) for c in self.collectives],
                "shards": _shards(self.shards),
                "largest": {
                    "microbatch_size": self.largest and self.largest.microbatch_size,
                    "sequence_length": self.largest and self.largest.sequence_length,
                },
                "advice": [
                    {
                        "change": change.words,
                        "total_bytes_per_device": change.total,
                        "fits": change.fits,
                    }
                    for change in self.advice
                ],
            },
            indent=2,
        )


def _shards(table: LayoutTable) -> list[dict[str, Any]]:
    """Return one entry for each kind of variable, layers taken together."""
    kinds: dict[str, dict[str, Any]] = {}
    for row in table.rows:
        path = _LAYER.sub("decoder_block_*/", row.path)
        kind = kinds.setdefault(
            path,
            {
                "path": path,
                "shape": list(row.shape),
                "dtype": row.dtype,
                "split_over": list(row.spec),
                "devices": row.devices,
                "layers": 0,
                "bytes_per_device": 0,
            },
        )
        kind["layers"] += 1
        kind["bytes_per_device"] += row.bytes_per_device
    return list(kinds.values())
