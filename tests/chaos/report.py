"""The table of figures: what was asked, what was reached, how long it took.

Turns the ledgers of all experiments into a page of Markdown. It refuses to run them.
"""

from collections.abc import Mapping, Sequence

from tests.benchmarks.comparison import markdown_table
from tests.chaos.experiment import Experiment, Trial, median_of

HEADER = ("test", "asked", "reached", "median time")
INTRODUCTION = (
    "Real runs of `python -m trainer` that are killed, stopped, damaged and moved, "
    "compared bit for bit with runs that were left alone."
)


def report(
    found: Mapping[Experiment, Sequence[Trial]],
    *,
    counts: Mapping[str, int],
    facts: Mapping[str, str | int | float],
    command: str,
) -> str:
    """Return the page.

    Args:
        found: The trials of every experiment so far.
        counts: How many each is to have.
        facts: Of the machine, as `machine_facts` has them.
        command: Makes the page again.
    """
    rows = [_row(e, trials, counts[e.name]) for e, trials in found.items()]
    every = [trial for trials in found.values() for trial in trials]
    dates = sorted({trial["time"][:10] for trial in every})
    machine = (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, "
        f"{facts['system']}, Python {facts['python']}"
    )
    revisions = sorted({trial["revision"] or "none" for trial in every})
    seeds = sorted({trial["seed"] for trial in every})
    told = f"Seeds {_listed(seeds)}; revisions {_listed(revisions)}."
    parts = [
        "# Chaos",
        INTRODUCTION,
        f"    {command}",
        f"{_listed(dates)}, {machine}. {told}",
        markdown_table(HEADER, rows, text_columns=(0, 1, 2, 3)),
        *_failures(found),
    ]
    return "\n\n".join(parts) + "\n"


def _row(experiment: Experiment, trials: Sequence[Trial], count: int) -> list[str]:
    """Return the cells of an experiment."""
    passed = sum(trial["passed"] for trial in trials)
    reached = f"{passed} of {len(trials)}" if trials else f"none yet, of {count} to do"
    if 0 < len(trials) < count:
        reached += f" so far, of {count} to do"
    if trials and (note := experiment.notes(trials)):
        reached += f"; {note}"
    return [experiment.test, experiment.asked, reached, _median(experiment, trials)]


def _median(experiment: Experiment, trials: Sequence[Trial]) -> str:
    median = median_of(trials, "seconds")
    return "" if median is None else f"{median:.1f} s {experiment.seconds}"


def _failures(found: Mapping[Experiment, Sequence[Trial]]) -> list[str]:
    """Return a line for every trial that failed."""
    lines = [
        f"- {experiment.name}, trial {trial['trial']}: {'; '.join(trial['faults'])}"
        for experiment, trials in found.items()
        for trial in trials
        if not trial["passed"]
    ]
    return ["What failed:", "\n".join(lines)] if lines else []


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "none"
