"""`metrics.jsonl` and `events.jsonl` of a run's directory.

Turns steps with named values, and events with facts, into lines, and the lines back
into each step once, however often the run was killed and continued. It refuses to
know what is measured and when.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from etils import epath

from trainer.tracking.lines import UPLOAD_SECONDS, LineFile, as_number, read_lines

METRICS, EVENTS = "metrics.jsonl", "events.jsonl"


class MetricsLog:
    """Writes both files; one process of a run does.

    Args:
        directory: The run's directory, local or remote.
        upload_seconds: Least time between two copies to a remote directory.
    """

    def __init__(
        self, directory: epath.PathLike, *, upload_seconds: float = UPLOAD_SECONDS
    ) -> None:
        root = epath.Path(directory)
        self._metrics = LineFile(root / METRICS, upload_seconds=upload_seconds)
        self._events = LineFile(root / EVENTS, upload_seconds=upload_seconds)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add named numbers of a step; one that is not finite is stored as null."""
        numbers = {name: as_number(value) for name, value in values.items()}
        self._metrics.append({"step": int(step), **numbers})

    def event(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Add something that happened now, with facts that JSON can hold."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._events.append({"time": now, "kind": kind, **(facts or {})})

    def flush(self) -> None:
        """Copy both files to the run's directory now, such as with a checkpoint."""
        self._metrics.flush()
        self._events.flush()

    def close(self) -> None:
        """Copy what is left and let go of the files."""
        self._metrics.close()
        self._events.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(directory: epath.PathLike) -> list[dict[str, Any]]:
    """Return one dict a step, in the order of steps.

    Of a value that was written several times for a step the last one counts, whether
    it came on a line of its own or after a restart.
    """
    steps: dict[int, dict[str, Any]] = {}
    for line in read_lines(epath.Path(directory) / METRICS):
        if isinstance(line.get("step"), int):
            steps.setdefault(line["step"], {}).update(line)
    return [steps[step] for step in sorted(steps)]


def read_events(
    directory: epath.PathLike, kind: str | None = None
) -> list[dict[str, Any]]:
    """Return the events in the order in which they happened, all or of one kind."""
    events = read_lines(epath.Path(directory) / EVENTS)
    return [event for event in events if kind in (None, event.get("kind"))]
