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
    "build": "preset, model, data, and the arrays",
    "first step": "its compilation included",
    "steps": "all the others",
    "evaluation": "before, during and after training, its compilation included",
    "samples": "answers before and after, their compilation included",
    "save": "checkpoints, as far as the run waits for them",
    "artifacts": "adapter, preset, report, card, and the end of the process",
}
UNTOLD = {
    "start": "interpreter, imports, configuration, preset, model and data",
    "samples": "the arrays, then answers before and after, with compilation",
}
"""What the same phases hold where a run does not tell when it was built."""

EVENTS = {
    "built": "build",
    "samples": "samples",
    "checkpoint": "save",
    "artifact": "artifacts",
    "merged": "artifacts",
}
FILES = {"LOCK": "start", "config.yaml": "start", "done.json": "artifacts"}
LINES = ("metrics.jsonl", "events.jsonl")


class Mark(NamedTuple):
    """A phase, and when some part of it ended, in seconds from the process's start."""

    phase: str
    seconds: float


def seconds_by_phase(marks: list[Mark]) -> dict[str, float]:
    """Return the seconds of every phase; together they are the last mark's.

    Of two marks of `build`, the first is its beginning: a run opens its log after it
    was built, and tells then how long that took.
    """
    seconds = dict.fromkeys(PHASES, 0.0)
    built = [at for phase, at in marks if phase == "build"]
    if built:
        marks = [mark for mark in marks if mark.phase != "start"]
        marks.remove(Mark("build", min(built)))
        marks.append(Mark("start", min(built)))
    before = 0.0
    for phase, at in sorted(marks, key=lambda mark: mark.seconds):
        seconds[phase] += at - before
        before = at
    return seconds


def phase_of_line(file: str, line: dict[str, Any]) -> str | None:
    """Return what had ended when a run wrote a line; None tells nothing."""
    if file == "events.jsonl" and line.get("kind") == "compiled":
        return "first step" if line["program"] == "step" else line["program"]
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
            self.marks += [Mark(phase, at) for phase in self._new_files(directory)]
            for name in LINES:
                self.marks += self._new_lines(directory / name, at)

    def end(self) -> None:
        """Mark the end of the process."""
        self.look()
        self.marks.append(Mark("artifacts", self._clock() - self._since))

    def _new_files(self, directory: pathlib.Path) -> Iterator[str]:
        for name, phase in FILES.items():
            if name not in self._seen and (directory / name).exists():
                self._seen.add(name)
                yield phase

    def _new_lines(self, path: pathlib.Path, at: float) -> Iterator[Mark]:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read[path.name])
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return
        self._read[path.name] += len(whole) + 1
        for text in whole.splitlines():
            line = json.loads(text)
            if phase := phase_of_line(path.name, line):
                yield Mark(phase, at)
                if phase == "build":
                    yield Mark(phase, at - line["seconds"])
