"""What a TPU's name says: how many hosts it has, and what GKE and the TPU API call it.

Turns `v5litepod-16` into a slice. It refuses to know where such a slice is free.
"""

from __future__ import annotations

import dataclasses
import math
import re

from trainer.config.errors import ConfigError
from trainer.config.spelling import nearest
from trainer.config.topology import TPU_SHAPES

_CHIPS_PER_HOST = 4
_NAME = re.compile(r"([a-z0-9]+)-(\d+)")


@dataclasses.dataclass(frozen=True)
class _Generation:
    """Names of one generation.

    Source: cloud.google.com/tpu/docs (pages runtimes, v4, v5e, v5p, v6e) and
    cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus.
    """

    chip: str
    cores_per_chip: int  # of those that the name counts
    gke_accelerator: str
    runtime: str


_GENERATIONS = {
    "v4": _Generation("v4", 2, "tpu-v4-podslice", "tpu-ubuntu2204-base"),
    "v5litepod": _Generation("v5e", 1, "tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite"),
    "v5p": _Generation("v5p", 2, "tpu-v5p-slice", "v2-alpha-tpuv5"),
    "v6e": _Generation("v6e", 1, "tpu-v6e-slice", "v2-alpha-tpuv6e"),
}


@dataclasses.dataclass(frozen=True)
class TpuSlice:
    """Chips that are joined by their own network, and the hosts that they hang on."""

    chips: int
    hosts: int
    topology: str
    gke_accelerator: str
    runtime: str

    @property
    def chips_per_host(self) -> int:
        """Chips that one process sees."""
        return self.chips // self.hosts


def tpu_slice(accelerator: str, *, hosts: int | None = None) -> TpuSlice:
    """Return the slice of a name such as `v5litepod-16`.

    Args:
        accelerator: Name in the TPU API, which xpk takes too.
        hosts: How many hosts a slice has; null for four chips each.

    Raises:
        ConfigError: There is no such slice, or its chips do not divide by the hosts.
    """
    found = _NAME.fullmatch(accelerator)
    generation = _GENERATIONS.get(found[1]) if found else None
    if found is None or generation is None:
        raise _no_such(accelerator)
    chips, rest = divmod(int(found[2]), generation.cores_per_chip)
    shapes = [s for s in TPU_SHAPES[generation.chip] if math.prod(s) == chips]
    if rest or not shapes:
        raise _no_such(accelerator)
    usual = max(1, chips // _CHIPS_PER_HOST)
    if hosts is not None and (chips % hosts or hosts > chips):
        raise ConfigError(
            key="launch.processes",
            expected=f"a divisor of the {chips} chips of {accelerator}",
            received=hosts,
            fix=f"launch.processes={usual}",
        )
    return TpuSlice(
        chips=chips,
        hosts=hosts or usual,
        topology="x".join(map(str, shapes[0])),
        gke_accelerator=generation.gke_accelerator,
        runtime=generation.runtime,
    )


def _no_such(accelerator: str) -> ConfigError:
    names = [
        f"{name}-{math.prod(shape) * generation.cores_per_chip}"
        for name, generation in _GENERATIONS.items()
        for shape in TPU_SHAPES[generation.chip]
    ]
    meant = accelerator.replace("v5e-", "v5litepod-").removeprefix("tpu-")
    return ConfigError(
        key="launch.accelerator",
        expected="a TPU of the TPU API: v4-N and v5p-N (N cores, two a chip), "
        "v5litepod-N and v6e-N (N chips), N as slices have it",
        received=accelerator,
        fix=f"launch.accelerator={nearest(meant, names) or 'v5litepod-8'}",
    )
