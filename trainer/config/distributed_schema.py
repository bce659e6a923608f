"""How several processes become one run: the keys of `distributed.*`.

Turns names into typed values, like `trainer.config.schema`, of which it is a part. It
refuses to know sockets and JAX; `trainer.distribution` joins the processes.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.config.errors import ConfigError

_OPEN_MPI = "OMPI_MCA_orte_hnp_uri"


@dataclass(kw_only=True)
class DistributedConfig:
    """Which processes the run has; all null: found out, or this one alone."""

    coordinator: str | None = None
    """`HOST:PORT` at which process 0 is reached, the port free there; null is found out
    on Cloud TPU, Slurm and Open MPI."""
    num_processes: int | None = None
    """Processes of the run, this one included."""
    process_index: int | None = None
    """Number of this process, from 0."""
    initialize_seconds: int = 300
    """Time in which all processes must have come; whoever has not is named."""
    heartbeat_seconds: int = 30
    """A process without sign of life for so long is lost, and the run ends."""
    stuck_seconds: int = 900
    """A process that lives but gets no further for so long ends the run: a step with
    its compilation, a batch of an evaluation, a checkpoint."""


def expected_processes(config: DistributedConfig) -> int:
    """Return the processes that keys or a cluster's environment name; 1 if none do."""
    if config.num_processes is not None:
        return config.num_processes
    if "SLURM_STEP_NODELIST" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))


def index_before_joining(config: DistributedConfig, simulated: int) -> int | None:
    """Return this process's number, as far as keys and environment tell it.

    None is unknown until JAX has looked: on a Cloud TPU only its metadata say it. The
    order is that of `trainer.distribution.detection`.

    Args:
        config: Keys that name a process, or none.
        simulated: Devices that the CPU plays; then no TPU is looked for.
    """
    if config.process_index is not None:
        return config.process_index
    if not simulated and (_has_tpu_device() or "TPU_WORKER_ID" in os.environ):
        return None
    named = "SLURM_PROCID" if "SLURM_STEP_NODELIST" in os.environ else None
    named = named or ("OMPI_COMM_WORLD_RANK" if _OPEN_MPI in os.environ else None)
    index = os.environ.get(named, "") if named else "0"
    return int(index) if index.isdecimal() else None


def _has_tpu_device() -> bool:
    """Return whether there is what might be a TPU: other devices are bound so too."""
    return any(
        next(pathlib.Path("/dev").glob(pattern), None) is not None
        for pattern in ("accel[0-9]*", "vfio/[0-9]*")
    )


def distributed_problems(config: DistributedConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with the three keys that name a process."""
    named = {
        "distributed.coordinator": config.coordinator,
        "distributed.num_processes": config.num_processes,
        "distributed.process_index": config.process_index,
    }
    missing = [key for key, value in named.items() if value is None]
    if len(missing) == len(named):
        return
    if missing:
        yield ConfigError(
            key=missing[0],
            expected="a value, since " + " and ".join(named.keys() - set(missing)) + " "
            "is given: all three name a process, or none does",
            received="null",
            fix=f"{missing[0]}={_EXAMPLES[missing[0]]}",
        )
        return
    yield from _wrong_values(config)


def _wrong_values(config: DistributedConfig) -> Iterator[ConfigError]:
    assert config.coordinator is not None and config.num_processes is not None
    assert config.process_index is not None
    host, _, port = config.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        yield ConfigError(
            key="distributed.coordinator",
            expected="HOST:PORT of process 0, the port from 1 to 65535",
            received=config.coordinator,
            fix=f"distributed.coordinator={host or config.coordinator}:8476",
        )
    if config.num_processes > 0 and config.process_index >= config.num_processes:
        yield ConfigError(
            key="distributed.process_index",
            expected=f"from 0 to {config.num_processes - 1}, since "
            f"distributed.num_processes={config.num_processes}",
            received=config.process_index,
            fix="number the processes from 0",
        )


_EXAMPLES = {
    "distributed.coordinator": "HOST:8476",
    "distributed.num_processes": "4",
    "distributed.process_index": "0",
}
