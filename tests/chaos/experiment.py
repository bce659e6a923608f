"""What an experiment is, and one trial of it as a line.

Turns what a trial found into facts that JSON holds. It refuses to know any experiment.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.chaos.workplace import Workplace

Trial = dict[str, Any]
"""`trial`, its number; `passed`; `faults`; `seconds`, if it was timed; other facts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One line of the table.

    Attributes:
        name: Of the file with its trials.
        test: What is done, as the table says it.
        asked: What has to come of it.
        full: Trials of the whole figure.
        run: Carries out the trials of these numbers and yields each when it is known.
        seconds: What the `seconds` of a trial are, None where there are none.
        notes: Returns what else the trials say, for the table.
    """

    name: str
    test: str
    asked: str
    full: int
    run: Callable[[Workplace, Sequence[int]], Iterator[Trial]]
    seconds: str | None = None
    notes: Callable[[Sequence[Trial]], str] = lambda trials: ""


def make_trial(
    number: int, faults: Sequence[str], *, seconds: float | None = None, **facts: Any
) -> Trial:
    """Return what is kept of a trial; without faults it has passed."""
    timed = {} if seconds is None else {"seconds": round(seconds, 3)}
    return {
        "trial": number,
        "passed": not faults,
        "faults": list(faults),
        **timed,
        **facts,
    }


def median_of(trials: Sequence[Trial], fact: str) -> float | None:
    """Return the median of a fact over the trials that have it."""
    values = [trial[fact] for trial in trials if trial.get(fact) is not None]
    return statistics.median(values) if values else None
