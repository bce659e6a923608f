"""Which processes a run has, from keys or from the cluster that started them.

Turns `distributed.*`, or what Cloud TPU, Slurm and Open MPI put into the environment,
into one address and two numbers. It refuses to connect to anybody.
"""

from __future__ import annotations

import dataclasses
import os

from jax._src.clusters import ClusterEnv

from trainer.config.distributed_schema import DistributedConfig
from trainer.config.errors import ConfigError

# JAX 0.10.2's own detectors, by the names that `jax.distributed.initialize` takes; the
# names are public, the table is not: tests/trainer/distribution/test_detection.py
_TPU, _OTHERS = ("gketpu", "gcetpu"), ("slurm", "ompi")


@dataclasses.dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a run meet, and which of them this one is.

    Attributes:
        address: `HOST:PORT` of process 0.
        count: Processes of the run, two or more.
        index: Number of this one, from 0.
        local_devices: Accelerators of this host that are this process's; None is all.
    """

    address: str
    count: int
    index: int
    local_devices: tuple[int, ...] | None = None


def find_rendezvous(config: DistributedConfig, *, simulated: int) -> Rendezvous | None:
    """Return where this process meets the others; None where it is alone.

    Args:
        config: Keys that name a process, or none.
        simulated: Devices that the CPU plays; then no TPU is looked for.

    Raises:
        ConfigError: What the cluster put into the environment makes no sense.
    """
    if config.coordinator is not None:
        assert config.num_processes is not None and config.process_index is not None
        found = Rendezvous(
            config.coordinator, config.num_processes, config.process_index
        )
        return found if found.count > 1 else None
    names = _OTHERS if simulated else (*_TPU, *_OTHERS)
    for cluster in ClusterEnv._cluster_types:
        if cluster.name in names and cluster.is_env_present():
            return _ask(cluster, seconds=config.initialize_seconds)
    return None


def _ask(cluster: type[ClusterEnv], *, seconds: int) -> Rendezvous | None:
    """Return what a cluster says of its processes."""
    try:
        count, index = cluster.get_process_count(), cluster.get_process_id()
        if count == 1:
            return None
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = cluster.get_coordinator_address(seconds, port)
        local = cluster.get_local_process_id()
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(
            key="distributed.coordinator",
            expected=f"processes that {cluster.name} names in the environment",
            received=f"{type(error).__name__}: {error}",
            fix="distributed.coordinator=HOST:8476 distributed.num_processes=4 "
            "distributed.process_index=0, 1, ...",
        ) from error
    alone = local is None or _has_host_to_itself()
    return Rendezvous(address, count, index, None if alone else (local,))


def _has_host_to_itself() -> bool:
    """Return whether one process runs on this host, and so has all its devices.

    JAX 0.10.2 would give it the first alone.
    """
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0]
    return "1" in (tasks, os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"))
