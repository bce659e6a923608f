"""A signal to one process stops all of them, after the same step.

Turns the signal that each process has or has not had into one number that all agree
on: a maximum over all devices, computed beside the steps. It refuses to know where the
signals come from and what stopping means.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer.distribution.joining import advance


class SharedStop:
    """Called alike in every process, returns what all of them were told before.

    The answer is one call late, so that nobody waits for the step that runs.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        whole = NamedSharding(mesh, PartitionSpec())
        self._largest = jax.jit(jnp.max, out_shardings=whole)
        self._devices = mesh.size
        self._is_shared = len({d.process_index for d in mesh.devices.flat}) > 1
        self._asked: jax.Array | None = None
        self._calls = 0

    def __call__(self, number: int) -> int:
        """Return the largest number of the call before; alone, `number` itself."""
        if not self._is_shared:
            return number
        self._calls += 1
        advance(f"its question {self._calls} whether to stop")
        before = self._asked
        mine = jax.make_array_from_callback(
            (self._devices,), self._split, lambda index: np.full(1, number, np.int32)
        )
        self._asked = self._largest(mine)
        return 0 if before is None else int(np.asarray(before.addressable_data(0)))
