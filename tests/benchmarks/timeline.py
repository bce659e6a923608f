"""Where the wall time of a run went, told by what appears in its directory.

Turns marks, each something that had just ended and when, into seconds a phase. The
time between two marks belongs to the later one. It refuses to know how a run works:
files and lines are all that it sees.
"""

import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

PHASES = (
    "start",
    "build",
    "first step",
    "steps",
    "evaluation",
    "samples",
    "save",
    "artifacts",
)
MEANINGS = {
    "start": "interpreter, imports, configuration and its checks",
    "build": "preset, model, data and the arrays",
    "first step": "its compilation included",
    "steps": "all the others",
    "evaluation": "before, during and after training, its compilation included",
    "samples": "answers before and after, their compilation included",
    "save": "checkpoints, as far as the run waits for them",
    "artifacts": "adapter, preset, report, card, and the end of the process",
}
EVENTS = {
    "built": "build",
    "samples": "samples",
    "checkpoint": "save",
    "artifact": "artifacts",
    "merged": "artifacts",
}
FILES = {"LOCK": "start", "config.yaml": "build", "done.json": "artifacts"}
LINES = ("metrics.jsonl", "events.jsonl")


class Mark(NamedTuple):
    """A phase, and when some part of it ended, in seconds from the process's start."""

    phase: str
    seconds: float


def seconds_by_phase(marks: list[Mark]) -> dict[str, float]:
    """Return the seconds of every phase; together they are the last mark's."""
    seconds = dict.fromkeys(PHASES, 0.0)
    before = 0.0
    for phase, at in sorted(marks, key=lambda mark: mark.seconds):
        seconds[phase] += at - before
        before = at
    return seconds


def phase_of_line(file: str, line: dict[str, Any]) -> str | None:
    """Return what had ended when a run wrote a line; None tells nothing."""
    if file == "events.jsonl":
        return EVENTS.get(line.get("kind", ""))
    if any(name.startswith("eval/") for name in line):
        return "evaluation"
    if "train/loss" in line:
        return "first step" if line["step"] == 1 else "steps"
    return None


class Watcher:
    """Sees a directory grow; `look` is called often while the run is at work."""

    def __init__(
        self, root: pathlib.Path, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.marks: list[Mark] = []
        self._root, self._clock = root, clock
        self._seen: set[str] = set()
        self._read = dict.fromkeys(LINES, 0)
        self._since = clock()

    def look(self) -> None:
        """Mark every file and line that was not there the last time."""
        at = self._clock() - self._since
        for directory in self._root.glob("*"):
            phases = [*self._new_files(directory)]
            for name in LINES:
                phases += self._new_lines(directory / name)
            self.marks += [Mark(phase, at) for phase in phases]

    def end(self) -> None:
        """Mark the end of the process."""
        self.look()
        self.marks.append(Mark("artifacts", self._clock() - self._since))

    def _new_files(self, directory: pathlib.Path) -> Iterator[str]:
        for name, phase in FILES.items():
            if name not in self._seen and (directory / name).exists():
                self._seen.add(name)
                yield phase

    def _new_lines(self, path: pathlib.Path) -> Iterator[str]:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[path.name])
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return
        self._read[path.name] += len(whole) + 1
        for line in whole.splitlines():
            if phase := phase_of_line(path.name, json.loads(line)):
                yield phase
