"""What the makers of chips promise: peak rate, memory, and how fast both are fed.

Turns the name of a chip, `v5e` or `h100`, or the kind that JAX gives a device into one
row of a table. It refuses to guess: a chip that is not in the table has no peak, and no
share of it is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of accelerator; a JAX device is a whole chip.

    Attributes:
        name: As in `plan.topology`.
        device_kinds: What JAX calls its devices.
        peak_flops_per_second: Of bfloat16 matrix products, dense, float32 sums.
        memory_bytes: What the maker or its driver states; the runtime keeps some.
        memory_bytes_per_second: Between the chip and that memory.
        interconnect_bytes_per_second: To all neighbours of a slice or a node together,
            both directions added.
        source: Where the figures are from.
        largest_fused_head_dim: Of cuDNN's attention: 256 from Hopper on, else 128.
    """

    name: str
    device_kinds: tuple[str, ...]
    peak_flops_per_second: float
    memory_bytes: int
    memory_bytes_per_second: float
    interconnect_bytes_per_second: float
    source: str
    largest_fused_head_dim: int = 128


class _Row(NamedTuple):
    """A line of the tables below, in the units that makers print."""

    name: str
    tera_flops: float
    memory: int
    gb_per_second: int
    links_gb_per_second: int
    source: str
    device_kinds: tuple[str, ...]
    largest_fused_head_dim: int = 128

    def chip(self) -> Chip:
        return Chip(
            name=self.name,
            device_kinds=self.device_kinds,
            peak_flops_per_second=self.tera_flops * 1e12,
            memory_bytes=self.memory,
            memory_bytes_per_second=self.gb_per_second * 1e9,
            interconnect_bytes_per_second=self.links_gb_per_second * 1e9,
            source=self.source,
            largest_fused_head_dim=self.largest_fused_head_dim,
        )


_GIB, _MIB = 2**30, 2**20
_TPU_DOCS = "docs.cloud.google.com/tpu/docs/"

# Google writes GB and means GiB: programs get 95.74 of a v5p, its page says 95.
# The links of v4 are 6 of 50 GB/s each way (Jouppi et al., arXiv 2304.01433, table 4).
# fmt: off
_TPUS = (
    _Row("v4", 275, 32 * _GIB, 1200, 600, _TPU_DOCS + "v4",
         ("TPU v4",)),
    _Row("v5e", 197, 16 * _GIB, 819, 400, _TPU_DOCS + "v5e",
         ("TPU v5 lite", "TPU v5e")),
    _Row("v5p", 459, 95 * _GIB, 2765, 1200, _TPU_DOCS + "v5p",
         ("TPU v5", "TPU v5p")),
    _Row("v6e", 918, 32 * _GIB, 1638, 800, _TPU_DOCS + "v6e",
         ("TPU v6 lite", "TPU v6e")),
)
# fmt: on

# NVIDIA states rates with sparsity, twice those here. The PCIe cards of a100 and h100
# are slower and not meant. Links are NVLink, and PCIe where there is none.
# Memory is the total that nvidia-smi tells of these cards with ECC on, not the round
# number of the data sheet: thundergolfer.com/blog/nvidia-gpu-memory-capacity lists all
# but b200, whose 183,359 MiB are what driver 570.172 tells of an HGX board.
# fmt: off
_NVIDIA = (
    _Row("a100", 312, 40_960 * _MIB, 1555, 600, "NVIDIA A100 data sheet, SXM, 40 GB",
         ("NVIDIA A100-SXM4-40GB",)),
    _Row("a100-80gb", 312, 81_920 * _MIB, 2039, 600,
         "NVIDIA A100 data sheet, SXM, 80 GB", ("NVIDIA A100-SXM4-80GB",)),
    _Row("h100", 989.4, 81_559 * _MIB, 3350, 900, "NVIDIA H100 data sheet, SXM",
         ("NVIDIA H100 80GB HBM3",), 256),
    _Row("h200", 989.4, 143_771 * _MIB, 4800, 900, "NVIDIA H200 data sheet, SXM",
         ("NVIDIA H200",), 256),
    _Row("b200", 2250, 183_359 * _MIB, 8000, 1800, "NVIDIA HGX B200 data sheet, 1000 W",
         ("NVIDIA B200",), 256),
    _Row("l4", 121, 23_034 * _MIB, 300, 64, "NVIDIA L4 data sheet",
         ("NVIDIA L4",)),
    _Row("l40s", 362, 46_068 * _MIB, 864, 64, "NVIDIA L40S data sheet",
         ("NVIDIA L40S",)),
)
# fmt: on

CHIPS: Mapping[str, Chip] = MappingProxyType(
    {row.name: row.chip() for row in (*_TPUS, *_NVIDIA)}
)
"""Every chip whose peak is known, by its name in `plan.topology`."""


def chip_of(device_kind: str) -> Chip | None:
    """Return the chip that JAX calls `device_kind`; None for one that is not known."""
    return next((c for c in CHIPS.values() if device_kind in c.device_kinds), None)
