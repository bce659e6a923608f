"""Devices that are simulated on the CPU or planned for, told before JAX is imported.

Turns `device.simulated` and `plan.topology` into the environment that JAX reads once,
at its import. It does not import JAX itself.
"""

from __future__ import annotations

import os
import re
import sys

from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig
from trainer.config.topology import planned_topology

_COMPILE_ONLY = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # libtpu would ask the metadata server of a TPU VM
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a compiler takes no chip from anyone
    "TPU_WORKER_HOSTNAMES": "localhost",  # these two only keep libtpu from warning
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def prepare_devices(config: RunConfig) -> None:
    """Make JAX, not yet imported, see the devices that a task works with.

    A plan for a topology leaves this machine's accelerators alone.

    Raises:
        ConfigError: JAX is imported already and sees another number of devices.
    """
    topology = planned_topology(config) if config.task == "plan" else None
    if topology is None:
        simulate_devices(config.device.simulated)
    elif topology.platform == "cpu":
        simulate_devices(topology.devices)
    elif "jax" not in sys.modules:
        os.environ.update(_COMPILE_ONLY)


def simulate_devices(count: int) -> None:
    """Make JAX, not yet imported, see `count` CPU devices; 0 changes nothing.

    Raises:
        ConfigError: JAX is imported already and sees another number of devices.
    """
    flag = f"--xla_force_host_platform_device_count={count}"
    present = os.environ.get("XLA_FLAGS", "")
    if count == 0 or ("jax" in sys.modules and flag in present.split()):
        return
    if "jax" in sys.modules:
        raise ConfigError(
            key="device.simulated",
            expected="one number in all jobs: JAX reads it once",
            received=count,
            fix="one command for each number of devices",
        )
    other = re.sub(r"--xla_force_host_platform_device_count=\S*", "", present)
    os.environ["XLA_FLAGS"] = f"{other} {flag}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    # XLA:CPU (jaxlib 0.10.2) aborts when the collectives of two programs in flight wait
    # for each other's threads; one program at a time cannot
    os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
