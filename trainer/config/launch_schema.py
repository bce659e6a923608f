"""Where the training of a command starts, and with what: the keys of `launch.*`.

Turns names into typed values, like `trainer.config.schema`, of which it is a part. It
refuses to know what the tools of a cloud or a cluster are called with.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class LaunchConfig:
    """Where the command runs."""

    name: str = "none"
    """`none` (in this process), `local` (processes of this machine), `tpu_vm`,
    `tpu_queued`, `gke`, `slurm` or `skypilot`."""
    submit: bool = False
    """Run what is rendered; false shows it."""
    processes: int | None = None
    """Processes of the training, one a host where it has hosts; null takes what the
    accelerator comes with, and 1 elsewhere."""
    max_restarts: int = 10
    """Starts after the first, when the training ends with 6 or 83; 0 never starts it
    again."""
    job: str | None = None
    """Name of the job, pod or task elsewhere; null makes one of the run's name."""
    project: str | None = None
    """Google Cloud project; null takes the one that gcloud is set to."""
    zone: str | None = None
    """Google Cloud zone of the TPU or the cluster."""
    cluster: str | None = None
    """GKE cluster, for the line of xpk; kubectl goes to its current context."""
    accelerator: str | None = None
    """`v5litepod-16` (TPU), `gpu:8` (devices of a Slurm node), `H100:8` (SkyPilot)."""
    runtime: str | None = None
    """TPU software version; null takes the accelerator's."""
    spot: bool = False
    """Take machines that are cheaper and may be taken away."""
    image: str | None = None
    """Container image with the trainer in it; null copies the code."""
    secrets: list[str] = field(default_factory=list)
    """Names of environment variables with keys, such as WANDB_API_KEY; their values
    appear nowhere."""
    partition: str | None = None
    """Slurm partition."""
    account: str | None = None
    """Slurm account."""
    limit_minutes: int | None = None
    """Slurm time limit of one start; the training goes on in the next."""
    grace_seconds: int = 120
    """Time between the warning and the end of a machine, to save in."""
    sweep: str | None = None
    """W&B sweep, ENTITY/PROJECT/ID: its agent runs on process 0 instead of one run,
    and every process gets the overrides of each trial."""
