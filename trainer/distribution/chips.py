"""What the makers of chips promise: peak rate, memory, and how fast both are fed.

Turns the name of a chip, `v5e` or `h100`, or the kind that JAX gives a device into one
row of a table. It refuses to guess: a chip that is not in the table has no peak, and no
share of it is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


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


def _row(
    name: str,
    *device_kinds: str,
    tera_flops: float,
    memory: int,
    gb_per_second: int,
    links_gb_per_second: int,
    source: str,
    largest_fused_head_dim: int = 128,
) -> Chip:
    return Chip(
        name=name,
        device_kinds=device_kinds,
        peak_flops_per_second=tera_flops * 1e12,
        memory_bytes=memory,
        memory_bytes_per_second=gb_per_second * 1e9,
        interconnect_bytes_per_second=links_gb_per_second * 1e9,
        source=source,
        largest_fused_head_dim=largest_fused_head_dim,
    )


_GIB, _MIB = 2**30, 2**20
_TPU_DOCS = "docs.cloud.google.com/tpu/docs/"

# Google writes GB and means GiB: programs get 95.74 of a v5p, its page says 95.
# The links of v4 are 6 of 50 GB/s each way (Jouppi et al., arXiv 2304.01433, table 4).
_TPUS = (
    _row(
        *("v4", "TPU v4"),
        tera_flops=275,
        memory=32 * _GIB,
        gb_per_second=1200,
        links_gb_per_second=600,
        source=_TPU_DOCS + "v4",
    ),
    _row(
        *("v5e", "TPU v5 lite", "TPU v5e"),
        tera_flops=197,
        memory=16 * _GIB,
        gb_per_second=819,
        links_gb_per_second=400,
        source=_TPU_DOCS + "v5e",
    ),
    _row(
        *("v5p", "TPU v5", "TPU v5p"),
        tera_flops=459,
        memory=95 * _GIB,
        gb_per_second=2765,
        links_gb_per_second=1200,
        source=_TPU_DOCS + "v5p",
    ),
    _row(
        *("v6e", "TPU v6 lite", "TPU v6e"),
        tera_flops=918,
        memory=32 * _GIB,
        gb_per_second=1638,
        links_gb_per_second=800,
        source=_TPU_DOCS + "v6e",
    ),
)

# NVIDIA states rates with sparsity, twice those here. The PCIe cards of a100 and h100
# are slower and not meant. Links are NVLink, and PCIe where there is none.
# Memory is the total that nvidia-smi tells of these cards with ECC on, not the round
# number of the data sheet: thundergolfer.com/blog/nvidia-gpu-memory-capacity lists all
# but b200, whose 183,359 MiB are what driver 570.172 tells of an HGX board.
_NVIDIA = (
    _row(
        *("a100", "NVIDIA A100-SXM4-40GB"),
        tera_flops=312,
        memory=40_960 * _MIB,
        gb_per_second=1555,
        links_gb_per_second=600,
        source="NVIDIA A100 data sheet, SXM, 40 GB",
    ),
    _row(
        *("a100-80gb", "NVIDIA A100-SXM4-80GB"),
        tera_flops=312,
        memory=81_920 * _MIB,
        gb_per_second=2039,
        links_gb_per_second=600,
        source="NVIDIA A100 data sheet, SXM, 80 GB",
    ),
    _row(
        *("h100", "NVIDIA H100 80GB HBM3"),
        tera_flops=989.4,
        memory=81_559 * _MIB,
        gb_per_second=3350,
        links_gb_per_second=900,
        source="NVIDIA H100 data sheet, SXM",
        largest_fused_head_dim=256,
    ),
    _row(
        *("h200", "NVIDIA H200"),
        tera_flops=989.4,
        memory=143_771 * _MIB,
        gb_per_second=4800,
        links_gb_per_second=900,
        source="NVIDIA H200 data sheet, SXM",
        largest_fused_head_dim=256,
    ),
    _row(
        *("b200", "NVIDIA B200"),
        tera_flops=2250,
        memory=183_359 * _MIB,
        gb_per_second=8000,
        links_gb_per_second=1800,
        source="NVIDIA HGX B200 data sheet, 1000 W",
        largest_fused_head_dim=256,
    ),
    _row(
        *("l4", "NVIDIA L4"),
        tera_flops=121,
        memory=23_034 * _MIB,
        gb_per_second=300,
        links_gb_per_second=64,
        source="NVIDIA L4 data sheet",
    ),
    _row(
        *("l40s", "NVIDIA L40S"),
        tera_flops=362,
        memory=46_068 * _MIB,
        gb_per_second=864,
        links_gb_per_second=64,
        source="NVIDIA L40S data sheet",
    ),
)

CHIPS: Mapping[str, Chip] = MappingProxyType(
    {chip.name: chip for chip in (*_TPUS, *_NVIDIA)}
)
"""Every chip whose peak is known, by its name in `plan.topology`."""


def chip_of(device_kind: str) -> Chip | None:
    """Return the chip that JAX calls `device_kind`; None for one that is not known."""
    return next((c for c in CHIPS.values() if device_kind in c.device_kinds), None)
