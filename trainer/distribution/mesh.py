"""The mesh: which devices split the batch and which split the model.

Turns `mesh.shape` and the devices there are into a mesh with the axes `batch` and
`model`. Knows no model: what a shape would cost per device comes in as a function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer.config.errors import SMALLER_STEP, MemoryPlanError
from trainer.config.mesh_shape import (
    auto_shapes,
    check_batch,
    check_devices,
    parse_shape,
)

AXES = ("batch", "model")


@dataclasses.dataclass(frozen=True)
class MeshChoice:
    """A mesh shape and the reason for it, in words for the user.

    Attributes:
        shape: Sizes of `batch` and `model`.
        reason: Why `auto` chose it; empty when the user did.
    """

    shape: tuple[int, int]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.shape[0]}x{self.shape[1]}"


def choose_mesh(
    wanted: str,
    *,
    num_devices: int,
    microbatch_size: int,
    planned_bytes: Callable[[tuple[int, int]], int],
    bytes_per_device: int | None,
) -> MeshChoice:
    """Return the shape to use, the user's or the first `auto` one that fits.

    `auto` starts with all devices on `batch` and moves factors of two to `model`.

    Args:
        wanted: `auto` or batch x model, such as `1x8`.
        num_devices: Devices of all processes.
        microbatch_size: Sequences of a forward pass; `batch` must divide it.
        planned_bytes: Bytes a device would need under a shape.
        bytes_per_device: Memory of a device; None when it cannot be known.

    Raises:
        ConfigError: The shape needs other devices than there are, or does not divide
            the microbatch.
        MemoryPlanError: `auto` found no shape that fits.
    """
    if wanted != "auto":
        shape = parse_shape(wanted)
        check_devices(shape, num_devices)
        check_batch(shape, microbatch_size)
        return MeshChoice(shape)
    shapes = [s for s in auto_shapes(num_devices) if microbatch_size % s[0] == 0]
    shapes = shapes or [(1, num_devices)]  # seven devices, a batch of sixteen
    for shape in shapes:
        needed = planned_bytes(shape)
        if bytes_per_device is None or needed <= bytes_per_device:
            return MeshChoice(shape, _reason(needed, bytes_per_device))
    smallest = min((planned_bytes(shape) for shape in shapes), default=0)
    raise MemoryPlanError(
        key="mesh.shape",
        expected=f"a mesh of {num_devices} devices that holds the model",
        received=f"at least {_gib(smallest)} a device of {_gib(bytes_per_device or 0)}",
        fix=f"more devices, {SMALLER_STEP}",
    )


def build_mesh(shape: tuple[int, int], devices: Sequence[jax.Device]) -> Mesh:
    """Arrange devices as `batch` x `model`; neighbours share `model`.

    `jax.make_mesh` would make explicit axes, under which Keras's einsums fail.
    """
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def batch_sharding(mesh: Mesh, *, dims: int, batch_dim: int = 0) -> NamedSharding:
    """Return the sharding of an array whose `batch_dim` is split over `batch`."""
    spec: list[str | None] = [None] * dims
    spec[batch_dim] = AXES[0]
    return NamedSharding(mesh, PartitionSpec(*spec))


def device_bytes(device: jax.Device) -> int | None:
    """Return the memory of an accelerator, or None where the host's is shared."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return stats.get("bytes_limit") if stats else None


def _reason(needed: int, limit: int | None) -> str:
    have = "" if limit is None else f" of {_gib(limit)}"
    return f"auto, planned {_gib(needed)} a device{have}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
