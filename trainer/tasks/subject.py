"""Which weights evaluate and generate look at: a run's, or a preset's.

Turns a configuration into a session and its arrays. A run is found by its name, or by
the same keys that it was trained with; where there is none, it is the preset, with
the adapter of `lora.path` if that is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from trainer import storage
from trainer.checkpoint import Store
from trainer.config.errors import ConfigError
from trainer.config.schema import LoraConfig, RunConfig
from trainer.model.assemble import initial_arrays
from trainer.model.state import Arrays
from trainer.tasks.run_adapters import saved_settings
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.session import Session, build_session
from trainer.tasks.state import (
    build_optimizer,
    restore_state,
    shapes_of_state,
    weights_in_use,
)
from trainer.tasks.typed_over import lay_over, overlaid, typed_keys


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with its weights, and where they came from in words."""

    session: Session
    weights: Arrays
    origin: str


def open_subject(config: RunConfig, *, words: Sequence[str]) -> Subject:
    """Open the run that the configuration names, or its preset.

    Args:
        config: What was typed, with defaults.
        words: As it was typed: of the rows, even a default counts over a run's.

    Raises:
        ConfigError: `run.name` names no run.
    """
    directory = RunDirectory(config)
    if directory.exists():
        return _open_run(config, directory, typed_keys(words, ("data",)))
    check_run_is_there(config, directory)
    return _open_preset(config)


def check_run_is_there(config: RunConfig, directory: RunDirectory) -> None:
    """Refuse a name that is no run's.

    Raises:
        ConfigError: `run.name` names no run.
    """
    if config.run.name is None or directory.exists():
        return
    raise ConfigError(
        key="run.name",
        expected=f"a run below {config.run.root}: {_runs(config.run.root)}",
        received=config.run.name,
        fix="one of them, or leave run.name out to use the preset",
    )


def _open_run(
    config: RunConfig, directory: RunDirectory, typed: Collection[str]
) -> Subject:
    stored = directory.stored_config()
    under = dataclasses.replace(
        config,
        preset=stored.preset,
        lora=stored.lora,
        optimizer=stored.optimizer,
        schedule=stored.schedule,
        seed=stored.seed,
        data=overlaid(stored.data, config.data),
    )
    config = lay_over(under, config, typed)
    session = build_session(config, saved=saved_settings(directory))
    arrays = _base(session, only_frozen=True)
    rule = config.checkpoint.on_corrupt
    with Store(
        directory.checkpoints, keep_last=1, read_only=True, on_corrupt=rule
    ) as store:
        step = store.best() if config.artifacts.source == "best" else None
        like = shapes_of_state(session.model, build_optimizer(session))
        state, _ = restore_state(store, step, like)
        step = store.latest() if step is None else step
    left_out = "".join(f"; {one}" for one in store.left_out)
    origin = f"{directory.path}, step {step}{left_out}"
    return Subject(session, {**arrays, **weights_in_use(state)}, origin)


def _open_preset(config: RunConfig) -> Subject:
    if config.lora.path is None:
        config = dataclasses.replace(config, lora=LoraConfig(rank=0))
    session = build_session(config)
    weights = _base(session)
    origin = config.preset.name
    if config.lora.path is not None:
        origin += f" with {config.lora.path}"
    return Subject(session, weights, origin)


def _base(session: Session, *, only_frozen: bool = False) -> Arrays:
    return initial_arrays(
        session.model,
        load_weights=session.config.preset.load_weights,
        adapter=session.adapter,
        seed=session.config.seed,
        only_frozen=only_frozen,
    )


def _runs(root: str) -> str:
    names = [
        name
        for name in storage.list_names(root)
        if storage.exists(f"{root}/{name}/config.yaml")
    ]
    return ", ".join(names) or "there is none"
