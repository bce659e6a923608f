"""Whether a device can keep for the backward pass what `trainer.remat` asks of it.

Turns a choice and a device into nothing, or into an error that names the key and the
nearest choice that works. What each choice keeps, `gemma.stacked.remat` decides.
"""

from __future__ import annotations

import jax

from trainer.config.errors import ConfigError

HOST_MEMORY = "pinned_host"


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
