"""A run of 2,000 steps and forty saves: its memory and open files do not grow."""

import json
import os
import statistics
import time
from pathlib import Path

from tests.chaos.directories import leftovers, numbers
from tests.chaos.experiment import Experiment, make_trial

STEPS = 2000
FIRST = 200  # memory is compared with what it was after so many steps
LARGEST_GROWTH = 0.02
LOOK_EVERY_SECONDS = 0.05
WORDS = ("trainer.eval_every_steps=100", "checkpoint.every_steps=50")


def run(place, trials):
    """Watch one process from outside while it trains."""
    steps = max(round(STEPS * place.scale), 2 * FIRST)
    for (number,) in place.parts(trials, 1):
        name = f"long-{number}"
        place.forget(name)
        since = time.perf_counter()
        words = [f"run.name={name}", f"trainer.num_train_steps={steps}", *WORDS]
        group = place.start(words)
        seen = _watch(group.processes[0], place.root / name)
        code = group.wait()[0]
        seconds = time.perf_counter() - since
        faults = [] if code == 0 else [f"exit code {code}: {group.said(0)[-300:]}"]
        faults += leftovers(place.root / name)
        if len(numbers(place.root / name)) != steps + 1:
            faults.append(f"{len(numbers(place.root / name))} steps told")
        more, facts = _judge([s for s in seen if FIRST <= s["step"] < steps])
        yield make_trial(
            number, [*faults, *more], seconds=seconds, steps=steps, **facts
        )


def _watch(process, run):
    """Return step, memory and open files, many times, until the process ends."""
    place, seen = Path(f"/proc/{process.pid}"), []
    while process.poll() is None:
        step = _last_step(run / "metrics.jsonl")
        try:
            fields = (place / "statm").read_text().split()
            files = len(os.listdir(place / "fd"))
        except OSError:  # it has ended meanwhile
            break
        memory = int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
        seen.append({"step": step, "memory": memory, "files": files})
        time.sleep(LOOK_EVERY_SECONDS)
    return seen


def _last_step(file):
    """Return the step of the last whole line; 0 while there is none."""
    try:
        with open(file, "rb") as opened:
            opened.seek(max(0, os.path.getsize(file) - 4096))
            lines = opened.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    whole = [line for line in lines[-2:] if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def _judge(seen):
    """Return what grew, and the figures.

    Memory is the median of the first and of the last tenth; files are the fewest of
    each half, since a save in progress has some of its own.
    """
    tenth, half = len(seen) // 10, len(seen) // 2
    if tenth == 0:
        return ["too few looks"], {}
    before, after = (
        statistics.median(look["memory"] for look in part)
        for part in (seen[:tenth], seen[-tenth:])
    )
    files = [min(look["files"] for look in part) for part in (seen[:half], seen[half:])]
    faults, growth = [], after / before - 1
    if growth > LARGEST_GROWTH:
        faults.append(f"memory grew by {growth:.1%}")
    if files[1] > files[0]:
        faults.append(f"{files[0]} files were open at first, {files[1]} later")
    facts = {"growth": growth, "memory_mb": [before / 1e6, after / 1e6]}
    return faults, {**facts, "open_files": files}


def notes(trials):
    told = [t for t in trials if "growth" in t]
    return "; ".join(
        f"{t['steps']:,} steps, memory {t['growth']:+.1%}, "
        f"{t['open_files'][1]} files open"
        for t in told
    )


LONG_RUN = Experiment(
    name="long_run",
    test=f"{STEPS:,} steps",
    asked=f"memory grows by 2 % at most after step {FIRST}; open files constant",
    full=1,
    run=run,
    seconds="the run",
    notes=notes,
)
