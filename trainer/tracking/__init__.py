"""What a run tells about itself: JSONL files always, W&B beside them if asked."""

from trainer.tracking.choose import open_tracker
from trainer.tracking.metrics_log import MetricsLog, read_events, read_metrics
from trainer.tracking.tracker import (
    Artifact,
    JsonlTracker,
    Lineage,
    Sample,
    Tracker,
    Trackers,
    read_samples,
)

__all__ = [
    "Artifact",
    "JsonlTracker",
    "Lineage",
    "MetricsLog",
    "Sample",
    "Tracker",
    "Trackers",
    "open_tracker",
    "read_events",
    "read_metrics",
    "read_samples",
]
