"""Device arrays from whatever fills host memory, one slice at a time.

Turns a shape, a sharding and a function that writes a slice into a `jax.Array`. What a
device does not hold is not asked for. On a CPU the memory that was written becomes the
array; for an accelerator one slice stands on the host at a time. It refuses to know
where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gemma.presets.mapping import aligned_empty
from gemma.presets.source import Index

Write = Callable[[np.ndarray, Index], None]
"""Writes the part of an array that the index names to the memory that it is given."""


def assemble(
    shape: tuple[int, ...],
    dtype: jax.typing.DTypeLike,
    sharding: jax.sharding.Sharding,
    write: Write,
) -> jax.Array:
    """Return an array of which `write` filled each slice of this process once."""
    parts: dict[jax.Device, jax.Array] = {}
    for index, devices in _slices(shape, sharding).values():
        sizes = tuple(part.stop - part.start for part in index)
        memory = aligned_empty(sizes, np.dtype(dtype))
        write(memory, index)
        for device in devices:
            parts[device] = jax.device_put(memory, device)
            if device.platform != "cpu":
                parts[device].block_until_ready()  # before the memory is freed
    return jax.make_array_from_single_device_arrays(
        shape, sharding, list(parts.values())
    )


def fetch(array: jax.Array) -> np.ndarray:
    """Return a whole array on the host, also one whose parts other processes hold.

    Then gathering it is a computation of all processes: each calls this alike.
    """
    if array.is_fully_addressable:
        return np.asarray(array)
    if not array.is_fully_replicated:
        everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
        array = jax.jit(lambda x: x, out_shardings=everywhere)(array)
    return np.asarray(array.addressable_data(0))


def _slices(
    shape: tuple[int, ...], sharding: jax.sharding.Sharding
) -> Mapping[tuple, tuple[Index, list[jax.Device]]]:
    """Map each different slice to itself and the devices that hold it."""
    found: dict[tuple, tuple[Index, list[jax.Device]]] = {}
    devices = sharding.addressable_devices_indices_map(shape)
    for device, index in devices.items():
        whole = tuple(
            slice(*part.indices(dim)[:2])
            for part, dim in zip(index, shape, strict=True)
        )
        key = tuple((part.start, part.stop) for part in whole)
        found.setdefault(key, (whole, []))[1].append(device)
    return found
