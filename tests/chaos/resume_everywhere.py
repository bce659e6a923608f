"""Resuming at every step of 40, with epochs that end at steps 13, 26 and 39.

What a run killed at a step leaves behind is cut out of an unbroken run that saved at
every step; the command line goes on from there, in one process for ten of them.
"""

import shutil
import time

from tests.chaos.directories import committed, differences
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.rows import write_rows
from trainer.tracking.lines import LineFile, read_lines

STEPS = 40
EPOCH = 13  # steps; 13 and 40 have no common divisor
ROWS = EPOCH * 8  # in sequences of their own
JOBS_A_PROCESS = 10
WORDS = (
    f"trainer.num_train_steps={STEPS}",
    "trainer.eval_every_steps=0",
    "trainer.microbatch_size=4",
    "lora.dropout=0.1",
    "data=jsonl",
    "data.pack=false",
    f"checkpoint.keep_last={STEPS}",
)


def run(place, numbers):
    """Go on from a step in each trial, and compare with the unbroken run."""
    rows = write_rows(place.root / "resume.jsonl", ROWS)
    words = (*WORDS, f"data.path={rows}")
    every = "checkpoint.every_steps=1"
    unbroken = place.unbroken("resume-unbroken", *words, every)
    for part in place.parts(numbers, JOBS_A_PROCESS):
        steps = {number: 1 + (EPOCH * (number + 1) - 1) % STEPS for number in part}
        names = [f"resume-{step}" for step in steps.values()]
        for step, name in zip(steps.values(), names, strict=True):
            place.forget(name)
            leave_at(unbroken, place.root / name, step)
        since = time.perf_counter()
        group = place.start([[f"run.name={name}", *words] for name in names])
        group.wait()
        seconds = (time.perf_counter() - since) / len(part)
        for number, name in zip(part, names, strict=True):
            faults = [f"no end: {group.said(0)[-300:]}"]
            if (place.root / name / "done.json").exists():
                faults = differences(place.root / name, unbroken)
            yield make_trial(number, faults, seconds=seconds, step=steps[number])
            place.forget(name)


def leave_at(whole, run, step):
    """Make of a whole run what it was when it had just committed a step."""
    run.mkdir(parents=True)
    shutil.copy(whole / "config.yaml", run)
    for name in ("metrics.jsonl", "events.jsonl"):
        file = LineFile(run / name)
        for line in read_lines(whole / name):
            if line.get("step", 0) <= step and line.get("kind") != "end":
                file.append(line)
        file.close()
    for kept in committed(whole):
        if kept <= step:
            place = f"checkpoints/{kept}"
            shutil.copytree(whole / place, run / place)


RESUME = Experiment(
    name="resume_everywhere",
    test="resume at each step of 40, epoch edges among them",
    asked="all bit-identical",
    full=STEPS,
    run=run,
    seconds="a run, nine others in its process",
)
