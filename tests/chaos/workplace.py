"""Where trials run: a directory, a seed, and processes of the real command line.

Turns words into processes of `python -m trainer` that are left alone or watched while
something is done to them. It refuses to know what a trial proves.
"""

import dataclasses
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.trainer.processes.conftest import Group, Starter

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT_PROGRAMS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
"""Every program is kept, the quickest too: a start costs little but Python's own."""
PATIENCE_SECONDS = 120  # for what takes a few on a quiet machine
LOOK_EVERY_SECONDS = 0.001


@dataclasses.dataclass
class Workplace:
    """Starts processes below a directory, and ends those that a trial leaves.

    Attributes:
        root: Parent of all runs.
        seed: Of every random choice.
        scale: 1 for the whole figures, 0.1 for a tenth, where trials have a length.
        slack: Multiplies the time that may pass; more than 1 where others work too.
        until: Of the monotonic clock; no trial begins after it.
    """

    root: Path
    seed: int = 0
    scale: float = 1.0
    slack: float = 1.0
    until: float = math.inf

    def __post_init__(self):
        self.root.mkdir(parents=True, exist_ok=True)
        self.starter = Starter(REPOSITORY, self.root)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for group in self.starter.groups:
            group.end()

    def parts(self, numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
        """Yield numbers of trials that are carried out together, while it is time."""
        for start in range(0, len(numbers), size):
            if time.monotonic() > self.until:
                return
            yield numbers[start : start + size]

    def draw(self, experiment: str, number: int) -> random.Random:
        """Return the random numbers of one trial."""
        return random.Random(f"{self.seed}/{experiment}/{number}")

    def start(self, jobs, *, processes: int = 1, devices: int = 1, **more) -> Group:
        """Start the command line, or several jobs after each other in a process."""
        return self.starter.start(
            jobs, processes=processes, devices=devices, **{**KEPT_PROGRAMS, **more}
        )

    def finish(self, jobs, **how) -> str:
        """Run to a good end and return what process 0 said.

        Raises:
            RuntimeError: A process ended with another code than 0.
        """
        group = self.start(jobs, **how)
        codes = group.wait(PATIENCE_SECONDS * 2)
        if set(codes) != {0}:
            raise RuntimeError(f"exit codes {codes}\n{group.everything()}")
        return group.said(0)

    def unbroken(self, name: str, *words: str, **how) -> Path:
        """Return the directory of a run that nothing happened to."""
        if not (self.root / name / "done.json").exists():
            self.finish([f"run.name={name}", *words], **how)
        return self.root / name

    def forget(self, name: str) -> None:
        """Delete a run's directory."""
        shutil.rmtree(self.root / name, ignore_errors=True)


def wait_until(happened: Callable[[], bool], group: Group) -> bool:
    """Return True when something has happened, False when a process ended first.

    Raises:
        TimeoutError: Neither came in two minutes.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if any(process.poll() is not None for process in group.processes):
            return happened()
        if time.monotonic() > until:
            raise TimeoutError(group.everything())
        time.sleep(LOOK_EVERY_SECONDS)
    return True
