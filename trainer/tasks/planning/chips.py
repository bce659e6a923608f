"""The chips of a plan: how many, how much memory, and descriptions to compile for.

Turns `plan.topology`, or the devices of this machine, into `PlannedChips`. It refuses
to know models: what a step needs of the chips is the subject of its neighbours.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Sequence

import jax

from gemma import attention
from trainer.config.errors import ConfigError
from trainer.config.topology import Platform, Topology
from trainer.distribution.chips import CHIPS, chip_of
from trainer.distribution.host_memory import host_bytes
from trainer.distribution.mesh import usable_bytes

GIB = 2**30
_USABLE_GIB = {"v4": 30.75, "v5e": 15.75, "v5p": 95.74, "v6e": 31.25}
"""What libtpu 0.0.42's compiler says that a program may use of each chip."""
_GPU_SHARE = 0.75
"""What JAX's allocator takes, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise."""
_TPU_OPTIONS: dict[str, dict[str, object]] = {
    "v4": {"chip_config_name": "megacore"},  # two cores of a chip as one device
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedChips:
    """What a plan is for.

    Attributes:
        name: In words for the user.
        platform: As JAX names it.
        num_devices: Devices of all slices.
        bytes_per_device: What a program may use of each; None where nobody knows.
        devices: To compile for, here or described; None where there is no compiler.
        reason: Why there is no compiler; empty where there is.
        topology: Chips that can be had in other numbers; None where they are here.
        largest_fused_head_dim: Of cuDNN's attention there.
    """

    name: str
    platform: Platform
    num_devices: int
    bytes_per_device: int | None
    devices: Sequence[jax.Device] | None
    reason: str = ""
    topology: Topology | None = None
    largest_fused_head_dim: int = 128


def target_of(topology: Topology | None) -> PlannedChips:
    """Return the chips of a topology, of this machine where there is none.

    Raises:
        ConfigError: libtpu knows no such topology.
    """
    if topology is None:
        return _here()
    if topology.platform == "cpu":
        return _simulated(topology)
    if topology.platform == "gpu":
        return undescribed(topology)
    if importlib.util.find_spec("libtpu") is None:
        return undescribed(topology)
    return dataclasses.replace(
        undescribed(topology), devices=_tpu_devices(topology), reason=""
    )


def undescribed(topology: Topology) -> PlannedChips:
    """Return chips of TPUs or NVIDIA's that nothing compiles for."""
    if topology.platform == "tpu":
        usable = _USABLE_GIB[topology.chip] * GIB
        reason = 'no libtpu here to compile with: pip install "gemma-trainer[plan]"'
    else:
        usable = CHIPS[topology.chip].memory_bytes * _GPU_SHARE
        reason = "NVIDIA chips that are not here are planned by estimate"
    return PlannedChips(
        name=str(topology),
        platform=topology.platform,
        num_devices=topology.devices,
        bytes_per_device=round(usable),
        devices=None,
        reason=reason,
        topology=topology,
        largest_fused_head_dim=CHIPS[topology.chip].largest_fused_head_dim,
    )


def _here() -> PlannedChips:
    devices = jax.devices()
    first = devices[0]
    known = chip_of(first.device_kind)
    return PlannedChips(
        name=f"{known.name if known else first.device_kind}:{len(devices)}, here",
        platform=first.platform,
        num_devices=len(devices),
        bytes_per_device=usable_bytes(devices),
        devices=devices,
        largest_fused_head_dim=attention.Target.of_device(first).largest_fused_head_dim,
    )


def _simulated(topology: Topology) -> PlannedChips:
    devices = jax.devices("cpu")
    if len(devices) < topology.devices:
        raise ConfigError(
            key="plan.topology",
            expected=f"at most {len(devices)} devices: JAX has been told their number",
            received=str(topology),
            fix="one command for each number of devices",
        )
    return PlannedChips(
        name=str(topology),
        platform="cpu",
        num_devices=topology.devices,
        bytes_per_device=host_bytes() // topology.devices,
        devices=devices[: topology.devices],
    )


def _tpu_devices(topology: Topology) -> list[jax.Device]:
    from jax.experimental import topologies

    options = dict(_TPU_OPTIONS.get(topology.chip, {}))
    if math.prod(topology.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    shape = "x".join(map(str, topology.shape))
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{topology.chip}:{shape}", **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            key="plan.topology",
            expected="a topology that libtpu knows",
            received=f"{topology}: {str(error).splitlines()[0]}",
            fix="plan.topology=v5e:2x4, or another slice",
        ) from error
    return list(found.devices)
