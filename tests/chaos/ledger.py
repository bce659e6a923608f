"""The trials that were carried out, a line of JSON each, so that a rerun goes on.

Turns trials into lines and lines into what is still to do. It refuses to know what a
trial is about.
"""

import datetime
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.experiment import Experiment, Trial
from tests.chaos.workplace import REPOSITORY, Workplace
from trainer.tracking.lines import LineFile, read_lines


class Ledger:
    """`<directory>/<experiment>.jsonl`."""

    def __init__(self, directory: Path, experiment: Experiment) -> None:
        self._path = directory / f"{experiment.name}.jsonl"
        self._experiment = experiment

    def trials(self) -> list[Trial]:
        """Return what was found, in the order of the numbers; the last line counts."""
        found = {line["trial"]: line for line in read_lines(self._path)}
        return [found[number] for number in sorted(found)]

    def missing(self, count: int, *, failed_too: bool = False) -> list[int]:
        """Return the numbers below `count` that are to be carried out."""
        done = {t["trial"] for t in self.trials() if t["passed"] or not failed_too}
        return [number for number in range(count) if number not in done]

    def carry_out(self, place: Workplace, numbers: Sequence[int]) -> Iterator[Trial]:
        """Carry out trials and keep each when it is known."""
        if not numbers:
            return
        facts = {"seed": place.seed, "revision": revision()}
        file = LineFile(self._path)
        try:
            for trial in self._experiment.run(place, numbers):
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                line = {**trial, **facts, "time": now}
                file.append(line)
                yield line
        finally:
            file.close()


def count_of(experiment: Experiment, scale: float) -> int:
    """Return how many trials a share of the whole figure has, at least one."""
    return max(1, round(experiment.full * scale))


def revision() -> str | None:
    """Return the commit that is tried; None outside of a checkout."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def shown(trial: Trial) -> str:
    """Return a trial as one line for a person."""
    faults = "; ".join(trial["faults"]).replace("\n", " ")[:400]
    told = {k: v for k, v in trial.items() if k not in ("faults", "time", "revision")}
    return f"{json.dumps(told)} {faults}".strip()
