"""Which sequences of a global batch a process needs, and where they go.

Turns a mesh into the numbers of the sequences that this process's devices hold, and the
arrays of those sequences into global arrays. What a process needs follows from its
devices alone: processes that share a part of the batch get the same sequences.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from trainer.distribution.mesh import batch_sharding


def local_sequences(
    sequences: int, mesh: Mesh, *, microbatches: int | None = None
) -> np.ndarray:
    """Return the sequences of a global batch that this process's devices hold.

    Args:
        sequences: Sequences of the global batch.
        mesh: Mesh whose first axis splits them.
        microbatches: Parts of the batch, each split over the mesh; None is one.

    Returns:
        Their numbers in the global batch, sorted.
    """
    numbers = np.arange(sequences).reshape(microbatches or 1, -1)
    sharding = batch_sharding(mesh, dims=2, batch_dim=1)
    indices = sharding.addressable_devices_indices_map(numbers.shape).values()
    return np.unique(np.concatenate([numbers[index].ravel() for index in indices]))


def place_sequences(
    batch: Mapping[str, np.ndarray],
    mesh: Mesh,
    *,
    sequences: int,
    microbatches: int | None = None,
) -> dict[str, jax.Array]:
    """Put this process's sequences of a global batch on its devices.

    Args:
        batch: Arrays [local sequences, ...] of `local_sequences`, or of all sequences.
        mesh: Mesh whose first axis splits the sequences.
        sequences: Sequences of the global batch.
        microbatches: First dim to split the sequences into; None makes none.

    Returns:
        Global arrays [sequences, ...] or [microbatches, sequences, ...].
    """
    held = local_sequences(sequences, mesh, microbatches=microbatches)
    dims: tuple[int, ...] = (sequences,)
    if microbatches is not None:
        dims = (microbatches, sequences // microbatches)
    numbers = np.arange(sequences).reshape(dims)

    def put(x: np.ndarray) -> jax.Array:
        places = held if len(x) < sequences else np.arange(sequences)
        sharding = batch_sharding(
            mesh, dims=x.ndim + len(dims) - 1, batch_dim=len(dims) - 1
        )

        def part(index: tuple[slice, ...]) -> np.ndarray:
            wanted = numbers[index[: len(dims)]]
            return x[np.searchsorted(places, wanted)][..., *index[len(dims) :]]

        return jax.make_array_from_callback((*dims, *x.shape[1:]), sharding, part)

    return {name: put(x) for name, x in batch.items()}
