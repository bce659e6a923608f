"""How hard the devices work: rate of operations, share of the peak, memory.

Turns what a step held and how long it took into numbers for `metrics.jsonl`. It
refuses to measure time: the loop does.
"""

from __future__ import annotations

import resource
import sys

import jax

from trainer.distribution.chips import Chip, chip_of
from trainer.model.flops import StepFlops
from trainer.tasks.session import Assembly
from trainer.training.loop import StepFacts


class Gauge:
    """Numbers beyond time, for the devices of one run.

    `train/flops_per_second` counts what a step must do (`trainer.model.flops`), all
    devices together; `train/mfu` is its share of their bfloat16 peak, whatever the
    dtype, and is left out where the peak is not known.
    """

    def __init__(self, parts: Assembly, chip: Chip | None) -> None:
        model, devices = parts.model, parts.mesh.size
        self._flops = StepFlops(
            config=model.preset.config,
            lora=model.lora,
            trains_embedding=model.trains_embedding,
        )
        self._peak = chip.peak_flops_per_second * devices if chip else None

    def __call__(self, step: StepFacts) -> dict[str, float]:
        """Return the numbers of a step."""
        flops = self._flops.of(lengths=step.lengths, loss_tokens=step.loss_tokens)
        rate = flops / step.seconds
        numbers = {
            "train/flops_per_second": rate,
            "train/memory_peak_bytes": peak_bytes(jax.local_devices()),
        }
        if self._peak is not None:
            numbers["train/mfu"] = rate / self._peak
        return numbers


def build_gauge(parts: Assembly) -> Gauge:
    """Return the gauge of a run on the devices of its mesh."""
    return Gauge(parts, chip_of(parts.mesh.devices.flat[0].device_kind))


def peak_bytes(devices: list[jax.Device]) -> int:
    """Return the most memory that one of the devices held so far.

    A CPU does not tell: there it is the most that this process held.
    """
    stats = [d.memory_stats() for d in devices if d.platform != "cpu"]
    known = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    if known:
        return max(known)
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
