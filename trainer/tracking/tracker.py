"""What every tracker takes: numbers, events, samples and artifacts of one run.

Turns the run's own words into calls that each tracker answers in its way. It refuses
to know files and services; the modules beside it do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from trainer.tracking.metrics_log import MetricsLog


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A held-out prompt with what should and what did follow."""

    prompt: str
    """The user's turn, or the beginning of a text."""
    reference: str
    """What the data has as the answer."""
    before: str
    """What the model answered before training."""
    after: str | None = None
    """What it answered afterwards; None while training has not ended."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Something that a run was made from."""

    name: str
    """Short name, such as that of the preset."""
    kind: Literal["model", "dataset"]
    """What it is."""
    source: str
    """Path, handle or name by which it can be found again."""
    digest: str
    """Hash that tells it from another one of this name."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Files that a run leaves behind."""

    name: str
    """Short name, such as `lora`."""
    path: str
    """Local file or directory."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts that JSON can hold."""


class Tracker(Protocol):
    """Takes what a run tells; one process of the run has one."""

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Take named numbers of a step."""

    def event(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Take something that happened."""

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Take what the model answers at a step."""

    def artifact(self, artifact: Artifact) -> None:
        """Take files that are complete."""

    def flush(self) -> None:
        """Put out of danger what was taken so far."""

    def close(self, exit_code: int = 0) -> None:
        """End, with the exit code of the run."""


class JsonlTracker:
    """Keeps everything in the two files of the run's directory."""

    def __init__(self, log: MetricsLog) -> None:
        self._log = log

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        self._log.write(step, values)

    def event(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Add a line to `events.jsonl`."""
        self._log.event(kind, facts)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Add an event that holds the samples."""
        rows = [asdict(sample) for sample in samples]
        self._log.event("samples", {"step": step, "samples": rows})

    def artifact(self, artifact: Artifact) -> None:
        """Add an event that says what was written where."""
        self._log.event("artifact", asdict(artifact))

    def flush(self) -> None:
        """Copy both files to the run's directory."""
        self._log.flush()

    def close(self, exit_code: int = 0) -> None:
        """Add the last event and let go of the files."""
        self._log.event("end", {"exit_code": exit_code})
        self._log.close()


class Trackers:
    """Several trackers as one; none at all is the silent one."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell every tracker numbers of a step."""
        for tracker in self._trackers:
            tracker.log(step, values)

    def event(self, kind: str, facts: Mapping[str, Any] | None = None) -> None:
        """Tell every tracker what happened."""
        for tracker in self._trackers:
            tracker.event(kind, facts)

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Tell every tracker what the model answers."""
        for tracker in self._trackers:
            tracker.samples(step, samples)

    def artifact(self, artifact: Artifact) -> None:
        """Tell every tracker which files are complete."""
        for tracker in self._trackers:
            tracker.artifact(artifact)

    def flush(self) -> None:
        """Let every tracker put out of danger what it has."""
        for tracker in self._trackers:
            tracker.flush()

    def close(self, exit_code: int = 0) -> None:
        """End every tracker."""
        for tracker in self._trackers:
            tracker.close(exit_code)


def read_samples(events: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Return the samples of the newest `samples` event, none if there is none."""
    rows = [event["samples"] for event in events if event.get("kind") == "samples"]
    return [Sample(**row) for row in rows[-1]] if rows else []
