"""The trackers of a run: JSONL always, W&B where the configuration asks."""

from __future__ import annotations

from trainer.data.opening import TrainingData
from trainer.distribution.processes import is_primary
from trainer.tasks.run_directory import RunDirectory
from trainer.tasks.session import Session
from trainer.tracking import JsonlTracker, MetricsLog, Tracker, Trackers


def open_trackers(
    session: Session, data: TrainingData, directory: RunDirectory
) -> Tracker:
    """Open what the configuration asks for; other processes get the silent one."""
    if not is_primary():
        return Trackers()
    return Trackers(JsonlTracker(MetricsLog(directory.path)))
