"""What the devices can keep for the backward pass, of what `trainer.remat` asks.

Turns `auto` and an estimate into a choice, and a choice and a device into nothing, or
into an error that names the key and the nearest choice that works. What each choice
keeps, `gemma.stacked.remat` decides.
"""

from __future__ import annotations

import dataclasses

import jax

from trainer.config.errors import ConfigError
from trainer.model.memory import MemoryPlan

HOST_MEMORY = "pinned_host"
LEAST, QUICKEST = "block", "attention"
"""What `auto` chooses from: the least memory, and the least time of what fits often."""
_ROOM = 0.8
"""Share of a device's memory that an estimate may fill: it errs by up to a tenth, and
evaluation and samples want some too."""


def choose_remat(
    wanted: str,
    plan: MemoryPlan,
    shape: tuple[int, int],
    *,
    bytes_per_device: int | None,
) -> str:
    """Return the choice, with `auto` resolved: the quickest that leaves room.

    Args:
        wanted: Of `trainer.remat`.
        plan: The estimate, under any choice.
        shape: The mesh, `batch` x `model`.
        bytes_per_device: What a program may use; None where nobody knows.
    """
    if wanted != "auto":
        return wanted
    if bytes_per_device is None:
        return LEAST
    quick = dataclasses.replace(plan, remat=QUICKEST).bytes_per_device(shape)
    return QUICKEST if quick <= _ROOM * bytes_per_device else LEAST


def check_remat(choice: str, device: jax.Device) -> None:
    """Refuse to move what is kept to the host where that gives no memory.

    Args:
        choice: Of `trainer.remat`.
        device: One of the run's, or of a topology.

    Raises:
        ConfigError: The device shares the host's memory, or cannot reach it.
    """
    if choice != "offload":
        return
    kinds = {memory.kind for memory in device.addressable_memories()}
    if device.platform != "cpu" and HOST_MEMORY in kinds:
        return
    raise _no_host(device.device_kind)


def check_remat_on(choice: str, platform: str) -> None:
    """Refuse the same for chips that are not here, by their platform.

    Args:
        choice: Of `trainer.remat`.
        platform: As JAX names it.

    Raises:
        ConfigError: It is a CPU, which shares the host's memory.
    """
    if choice == "offload" and platform == "cpu":
        raise _no_host(platform)


def _no_host(kind: str) -> ConfigError:
    return ConfigError(
        key="trainer.remat",
        expected=f"a choice for {kind} devices, which have no memory "
        f"beside {HOST_MEMORY}",
        received="offload",
        fix="trainer.remat=block",
    )
