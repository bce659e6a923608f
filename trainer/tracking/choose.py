"""The trackers that a configuration names, as one.

Turns `tracker.*` and the facts of a run into a tracker. It refuses to import W&B for
those who did not ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from etils import epath

from trainer.config.schema import TrackerConfig
from trainer.tracking.metrics_log import MetricsLog
from trainer.tracking.tracker import JsonlTracker, Lineage, Tracker, Trackers


def open_tracker(
    config: TrackerConfig,
    *,
    directory: epath.PathLike,
    name: str,
    settings: Mapping[str, Any],
    lineage: Sequence[Lineage],
    say: Callable[[str], None] = print,
) -> Trackers:
    """Return the trackers of a run, for its primary process; others take `Trackers()`.

    Args:
        config: Which trackers, and how.
        directory: The run's directory, local or remote.
        name: The run's name.
        settings: The resolved configuration, without secrets.
        lineage: What the run is made from; also kept as an event, whatever the mode.
        say: Shows one line to the user.
    """
    log = MetricsLog(directory)
    log.event("inputs", {"inputs": [asdict(item) for item in lineage]})
    trackers: list[Tracker] = [JsonlTracker(log)]
    if config.name == "wandb":
        from trainer.tracking.wandb_tracker import WandbTracker

        try:
            wandb = WandbTracker(
                config,
                directory=directory,
                name=name,
                settings=settings,
                lineage=lineage,
                say=say,
            )
        except Exception:
            log.close()
            raise
        trackers.append(wandb)
    return Trackers(*trackers)
