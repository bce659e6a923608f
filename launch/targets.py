"""What a launch elsewhere consists of: files that a person can read, and one command.

Turns a configuration and the words of the training into scripts and manifests. It
refuses to run them, and to read a key's value: secrets are passed on by name.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.accelerators import TpuSlice, tpu_slice
from launch.command import job_name
from launch.rendering import render
from trainer.config.choices import conf_directory
from trainer.config.ending import BUG, STOPPED_BY_USER
from trainer.config.errors import (
    ConfigError,
    DataError,
    DirectoryInUseError,
    MemoryPlanError,
    NumericsError,
    PresetError,
    StorageError,
)
from trainer.config.schema import RunConfig

FINAL_CODES = (
    BUG,
    *(
        error.exit_code
        for error in (
            ConfigError,
            DataError,
            PresetError,
            MemoryPlanError,
            StorageError,
            NumericsError,
            DirectoryInUseError,
        )
    ),
    STOPPED_BY_USER,
)
"""Ends that another start does not mend."""
_COUNTED = re.compile(r"([A-Za-z][A-Za-z0-9-]*):(\d+)")


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Files of a launch, and the command that starts it in their folder.

    Attributes:
        files: Text by name.
        start: What `launch.submit=true` runs.
        tool: The program that has to be installed for it.
        needs: Secrets that have to be in the environment of that command.
    """

    files: dict[str, str]
    start: tuple[str, ...]
    tool: str
    needs: tuple[str, ...] = ()


def render_target(config: RunConfig, words: Sequence[str]) -> Rendered:
    """Return what starts a training elsewhere.

    Args:
        config: The checked configuration.
        words: Of the training alone.

    Raises:
        ConfigError: The accelerator does not exist, or there is no code to copy.
    """
    targets: dict[str, Callable[[RunConfig, Sequence[str]], Rendered]] = {
        "tpu_vm": _tpu,
        "tpu_queued": _tpu,
        "gke": _gke,
        "slurm": _slurm,
        "skypilot": _skypilot,
    }
    return targets[config.launch.name](config, words)


def _tpu(config: RunConfig, words: Sequence[str]) -> Rendered:
    launch = config.launch
    queued = launch.name == "tpu_queued"
    values = _values(config) | {
        "queued": queued,
        "runtime": launch.runtime or _slice(config).runtime,
        "repository": _repository(config),
        "lines": _lines(_supervised(config), training_command(config, words)),
        "environment": _variables(config),
    }
    files = {name: render(name, **values) for name in ("tpu.sh", "worker.sh")}
    return Rendered(files, ("bash", "tpu.sh", "start"), "gcloud")


def _gke(config: RunConfig, words: Sequence[str]) -> Rendered:
    values = _values(config) | {"slice": _slice(config, hosts=config.launch.processes)}
    command = training_command(config, words)
    # Kubernetes puts values of variables where a word has $(NAME)
    literal = [word.replace("$(", "$$(") for word in command]
    files = {
        "jobset.yaml": render("jobset.yaml", **values, command=literal),
        "xpk.sh": render("xpk.sh", **values, command=command),
    }
    return Rendered(files, ("kubectl", "apply", "-f", "jobset.yaml"), "kubectl")


def _slurm(config: RunConfig, words: Sequence[str]) -> Rendered:
    values = _values(config) | {
        "lines": _lines(training_command(config, words, python=sys.executable)),
        "processes": config.launch.processes or 1,
    }
    files = {"job.sbatch": render("job.sbatch", **values)}
    # the job works in the folder in which the command was typed, not in the file's
    start = ("sbatch", f"--chdir={Path.cwd()}", "job.sbatch")
    return Rendered(files, start, "sbatch", needs=tuple(config.launch.secrets))


def _skypilot(config: RunConfig, words: Sequence[str]) -> Rendered:
    launch = config.launch
    name, count = launch.accelerator or "", None
    if found := _COUNTED.fullmatch(name):
        name, count = found[1], int(found[2])
    is_tpu = name.startswith("tpu-")
    processes = launch.processes or 1
    values = _values(config) | {
        "accelerator": name,
        "count": count,
        "processes": processes,
        "joined": processes > 1 and not is_tpu,
        "extra": "tpu" if is_tpu else "cuda",
        "repository": _repository(config),
        "lines": _lines(_supervised(config), training_command(config, words)),
    }
    files = {"skypilot.yaml": render("skypilot.yaml", **values)}
    named = [word for name in launch.secrets for word in ("--secret", name)]
    start = ("sky", "jobs", "launch", "--yes", *named, "skypilot.yaml")
    return Rendered(files, start, "sky", needs=tuple(launch.secrets))


def _values(config: RunConfig) -> dict[str, Any]:
    """Return what every template may show."""
    launch = dataclasses.asdict(config.launch)
    return launch | {
        "job": job_name(config),
        "slices": config.mesh.slices or 1,
        "final_codes": list(FINAL_CODES),
    }


def _slice(config: RunConfig, *, hosts: int | None = None) -> TpuSlice:
    return tpu_slice(config.launch.accelerator or "", hosts=hosts)


def training_command(
    config: RunConfig, words: Sequence[str], *, python: str = "python"
) -> list[str]:
    """Return the command of each process: the training, or the trials of a sweep."""
    training = [python, "-m", "trainer", *words]
    if config.launch.sweep is None:
        return training
    exchange = f"{config.run.root.rstrip('/')}/{_exchange(config.launch.sweep)}"
    sweep = [f"--sweep={config.launch.sweep}", f"--exchange={exchange}"]
    return [python, "-m", "launch.pod_sweep", *sweep, "--", *training]


def _lines(*commands: Sequence[str]) -> list[list[str]]:
    """Return commands as lines to read: up to the first key each, then a key a line."""
    lines = []
    for command in commands:
        keys = [number for number, word in enumerate(command) if "=" in word]
        first = keys[0] if keys else len(command)
        lines += [list(command[:first]), *([word] for word in command[first:])]
    return lines


def _exchange(sweep: str) -> str:
    return f"sweep-{sweep.rsplit('/', 1)[-1]}-trials"


def _supervised(config: RunConfig) -> list[str]:
    # a sweep's agent is not started again in the middle: only with all its processes
    restarts = "0" if config.launch.sweep else str(config.launch.max_restarts)
    return ["python", "-m", "launch.local", "--max-restarts", restarts, "--"]


def _variables(config: RunConfig) -> list[str]:
    """Return the names of variables that a container takes from its machine."""
    joined = ["TPU_WORKER_ID", "LAUNCH_START"] if config.launch.sweep else []
    return [*config.launch.secrets, *joined]


def _repository(config: RunConfig) -> str:
    """Return the folder whose code is copied.

    Raises:
        ConfigError: The trainer was installed without one, and no image is named.
    """
    folder = conf_directory().parent
    if config.launch.image is None and not (folder / "pyproject.toml").exists():
        raise ConfigError(
            key="launch.image",
            expected="an image with the trainer in it, since this installation has no "
            "repository whose code could be copied",
            received="nothing",
            fix="launch.image=registry.example/me/trainer:1, or type it in a clone",
        )
    return str(folder)
