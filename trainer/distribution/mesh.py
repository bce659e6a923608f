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

from trainer.config.errors import SMALLER_STEP, ConfigError, MemoryPlanError
from trainer.config.mesh_shape import (
    auto_shapes,
    check_batch,
    check_devices,
    check_slices,
    parse_shape,
)
from trainer.distribution.host_memory import host_bytes

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
    slices: int = 1,
) -> MeshChoice:
    """Return the shape to use, the user's or the first `auto` one that fits.

    `auto` starts with all devices on `batch` and moves factors of two to `model`.

    Args:
        wanted: `auto` or batch x model, such as `1x8`.
        num_devices: Devices of all processes.
        microbatch_size: Sequences of a forward pass; `batch` must divide it.
        planned_bytes: Bytes a device would need under a shape.
        bytes_per_device: Memory of a device; None when it cannot be known.
        slices: Slices over which `batch` runs.

    Raises:
        ConfigError: The shape needs other devices than there are, does not divide the
            microbatch, or has `model` run across slices.
        MemoryPlanError: `auto` found no shape that fits.
    """
    if wanted != "auto":
        shape = parse_shape(wanted)
        check_devices(shape, num_devices)
        check_slices(shape, slices)
        check_batch(shape, microbatch_size)
        return MeshChoice(shape)
    shapes = candidate_shapes(num_devices, microbatch_size, slices=slices)
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


def candidate_shapes(
    num_devices: int, microbatch_size: int, *, slices: int = 1
) -> list[tuple[int, int]]:
    """Return the shapes that `auto` tries, the first it prefers; never none.

    Args:
        num_devices: Devices of all processes.
        microbatch_size: Sequences of a forward pass; `batch` must divide it.
        slices: Slices over which `batch` runs.
    """
    inside = [s for s in auto_shapes(num_devices) if s[0] % slices == 0]
    shapes = [s for s in inside if microbatch_size % s[0] == 0]
    return shapes or [(slices, num_devices // slices)]  # 7 devices, a batch of 16


def build_mesh(shape: tuple[int, int], devices: Sequence[jax.Device]) -> Mesh:
    """Arrange devices as `batch` x `model`; neighbours share `model`.

    Slices come one after the other, in them processes, in them devices: `model` stays
    inside a process or a slice where its size allows that, `batch` runs across. (JAX's
    `mesh_utils` puts a `model` of 4 on a v5e:4x4 across two hosts; then both read the
    same rows.) `jax.make_mesh` would make explicit axes, under which Keras's einsums
    fail.
    """
    ordered = sorted(devices, key=lambda d: (_slice(d), d.process_index, d.id))
    return Mesh(np.asarray(ordered).reshape(shape), AXES)


def count_slices(wanted: int | None, devices: Sequence[jax.Device]) -> int:
    """Return how many slices the devices are; `wanted` where they do not say.

    Raises:
        ConfigError: They are another number of slices, or cannot be shared out evenly.
    """
    found = len({_slice(device) for device in devices})
    if wanted is None or wanted == found:
        return found
    processes = len({device.process_index for device in devices})
    parts = processes if processes > 1 else len(devices)
    if found == 1 and parts % wanted == 0:
        return wanted
    what = f"{found} slices" if found > 1 else f"{processes} process(es)"
    raise ConfigError(
        key="mesh.slices",
        expected=f"the number of slices, or a divisor of {parts} where there are none",
        received=f"{wanted}, and {len(devices)} devices in {what}",
        fix="mesh.slices=null, which asks the devices",
    )


def _slice(device: jax.Device) -> int:
    """Return the slice of a TPU's device; others are all in one."""
    return getattr(device, "slice_index", None) or 0


def batch_sharding(mesh: Mesh, *, dims: int, batch_dim: int = 0) -> NamedSharding:
    """Return the sharding of an array whose `batch_dim` is split over `batch`."""
    spec: list[str | None] = [None] * dims
    spec[batch_dim] = AXES[0]
    return NamedSharding(mesh, PartitionSpec(*spec))


def device_bytes(device: jax.Device) -> int | None:
    """Return an own accelerator's memory, or None where the host's is shared."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return stats.get("bytes_limit") if stats else None


def usable_bytes(devices: Sequence[jax.Device]) -> int | None:
    """Return what a program may use of each device of a host; None where unknown.

    Args:
        devices: All of this process's, which share the host's memory on a CPU.
    """
    if devices[0].platform == "cpu":
        return host_bytes() // len(devices)
    return device_bytes(devices[0])


def _reason(needed: int, limit: int | None) -> str:
    have = "" if limit is None else f" of {_gib(limit)}"
    return f"auto, planned {_gib(needed)} a device{have}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
