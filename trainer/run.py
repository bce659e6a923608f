"""The composition root: from a typed configuration to a task's exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from gemma.presets import PresetFileError
from trainer.config.errors import ConfigError
from trainer.config.schema import RunConfig
from trainer.tasks.console import Screen
from trainer.tasks.session import Session, build_session, preset_error
from trainer.tasks.train import run_training

Task = Callable[[Session, Screen], int]

TASKS: dict[str, Task] = {"train": run_training}


def run(config: RunConfig) -> int:
    """Do what `config.task` says and return the process's exit code.

    Raises:
        RunError: With the message and exit code for the user.
    """
    if config.task not in TASKS:
        raise ConfigError(
            key="task",
            expected=f"one of {', '.join(TASKS)}",
            received=config.task,
            fix="task=train",
        )
    with _explained():
        return TASKS[config.task](build_session(config), Screen())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say errors of `gemma`, which knows no keys, in the words of the configuration."""
    try:
        yield
    except PresetFileError as error:
        raise preset_error(error) from error
