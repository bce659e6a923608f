"""What adapters a run's checkpoints hold, once the file they started from is gone.

Turns settings into a file of the run's directory, and that file back into settings as
soon as there is a checkpoint. It refuses to know factors: those are in the checkpoint.
"""

from __future__ import annotations

import dataclasses

from gemma.lora import LoraSettings, lora_settings
from trainer import storage
from trainer.checkpoint import Store
from trainer.config.errors import StorageError
from trainer.tasks.run_directory import RunDirectory

SETTINGS = "adapters.json"


def keep_settings(directory: RunDirectory, settings: LoraSettings) -> None:
    """Write the settings that a run began with beside its configuration."""
    storage.write_json(directory.path / SETTINGS, dataclasses.asdict(settings))


def saved_settings(directory: RunDirectory) -> LoraSettings | None:
    """Return the settings of the adapters in a run's checkpoints.

    None where nothing was saved, or where the configuration says it all: the run
    began, or begins, without a file of adapters.

    Raises:
        StorageError: The file is damaged.
    """
    path = directory.path / SETTINGS
    if not storage.exists(path) or not storage.exists(directory.checkpoints):
        return None
    with Store(directory.checkpoints, keep_last=1, read_only=True) as store:
        if store.latest() is None:
            return None
    try:
        return lora_settings(**storage.read_json(path))
    except (TypeError, ValueError) as error:
        raise StorageError(
            key=str(path),
            expected="rank, alpha, targets, factorisation and dropout of adapters",
            received=str(error),
            fix="restore the file from a copy; without it, lora.path is read again",
        ) from error
