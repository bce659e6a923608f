"""The trackers of a run, told what the run is made from."""

from __future__ import annotations

import dataclasses
import hashlib

from trainer.data.opening import TrainingData
from trainer.distribution.processes import is_primary
from trainer.tasks.console import Screen
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.session import Session
from trainer.tracking import Lineage, Tracker, Trackers, open_tracker


def open_trackers(
    session: Session, data: TrainingData, directory: RunDirectory, screen: Screen
) -> Tracker:
    """Open what the configuration asks for; other processes get the silent one."""
    if not is_primary():
        return Trackers()
    config = session.config
    preset = Lineage(
        name=config.preset.name.rstrip("/").rsplit("/", 1)[-1],
        kind="model",
        source=config.preset.name,
        digest=_preset_digest(session),
    )
    rows = Lineage(
        name=config.data.source,
        kind="dataset",
        source=config.data.path or config.data.name or config.data.source,
        digest=data.fingerprint,
    )
    return open_tracker(
        config.tracker,
        directory=directory.path,
        name=directory.name,
        settings=dataclasses.asdict(config),
        lineage=[preset, rows],
        say=screen.line,
    )


def _preset_digest(session: Session) -> str:
    """Return a hash of what the preset is: its dimensions, vocabulary and origin.

    Hashing the weights would read a second time what may be 50 GB.
    """
    preset = session.model.preset
    facts = repr((preset.name, preset.handle, preset.config, session.tokenizer.digest))
    return hashlib.sha256(facts.encode()).hexdigest()
