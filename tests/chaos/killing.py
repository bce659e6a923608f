"""When to kill a process of a run: at random, in a start, a training or a save.

Turns random numbers and what appears in the run's directory into a moment. It refuses
to know how many processes the run has and what has to become of it.
"""

import dataclasses
import time
from pathlib import Path
from random import Random

from tests.chaos.directories import committed, restored, unfinished
from tests.chaos.experiment import Trial
from tests.chaos.workplace import wait_until
from tests.trainer.processes.conftest import Group

AIMS = ("save", "start", "save", "training", "training")  # in turns: two fifths, saves
START_SECONDS = 3.0  # about what a start takes until its first step
TRAINING_SECONDS = 0.8  # a part of what the run trains
SAVE_SECONDS = 0.04  # about what a save takes, from its directory to its commit
SAVES = 5  # one of the first so many after a start


@dataclasses.dataclass
class Watch:
    """What happens in a run's directory from now on."""

    run: Path

    def __post_init__(self) -> None:
        self._before = self._saves()
        self._started: set[tuple[str, int]] = set()
        self._size = self._told()
        self._restored = len(restored(self.run))

    def saves_begun(self) -> int:
        """Return how many directories of saves have appeared; ask often."""
        self._started |= self._saves() - self._before
        return len(self._started)

    def has_trained(self) -> bool:
        """Return whether a step was told."""
        return self._told() > self._size

    def went_on_from(self) -> int | None:
        """Return the step of the checkpoint that was read, if one was."""
        return next(iter(restored(self.run)[self._restored :]), None)

    def is_saving(self) -> bool:
        """Return whether a save that has begun was not committed."""
        return bool(self._saves() - self._before)

    def _saves(self) -> set[tuple[str, int]]:
        """Return the unfinished saves, told from older ones of the same name."""
        found = set()
        for name in unfinished(self.run):
            try:
                found.add((name, (self.run / "checkpoints" / name).stat().st_ino))
            except FileNotFoundError:  # committed, or deleted, meanwhile
                continue
        return found

    def _told(self) -> int:
        file = self.run / "metrics.jsonl"
        return file.stat().st_size if file.exists() else 0


def await_moment(aim: str, random: Random, watch: Watch, group: Group) -> None:
    """Return at a random moment of what is aimed at, or when a process has ended."""
    seconds = {"start": START_SECONDS, "training": TRAINING_SECONDS}.get(aim, 0.0)
    if aim == "training":
        wait_until(watch.has_trained, group)
    if aim == "save":
        wanted = random.randint(1, SAVES)
        wait_until(lambda: watch.saves_begun() >= wanted, group)
        seconds = SAVE_SECONDS
    time.sleep(random.uniform(0, seconds))


def what_was_killed(aim: str, watch: Watch) -> Trial:
    """Return what stood in the directory when the process was dead."""
    newest = max(committed(watch.run), default=None)
    return {"aim": aim, "inside_save": watch.is_saving(), "committed": newest}


def lost_since(kill: Trial, watch: Watch) -> list[str]:
    """Return what the start after a kill made of the last commit."""
    last, went_on = kill["committed"], watch.went_on_from()
    if went_on is not None and went_on != last:
        return [f"went on from step {went_on}, and step {last} was committed"]
    newest = max(committed(watch.run), default=0)
    if newest < (last or 0):
        return [f"step {newest} is the newest, and step {last} was committed"]
    return []
