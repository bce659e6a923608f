"""What a save costs the loop of a state that takes a while to write.

All weights of a model of some eighty million are trained, so that a checkpoint has
a gigabyte. The time for which the loop stands still is measured inside the
process, the end of the save by its commit.
"""

import json
import threading
import time

from tests.chaos.directories import committed
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.workplace import LOOK_EVERY_SECONDS, REPOSITORY

WORKER = REPOSITORY / "tests/chaos/timed_saves.py"
LARGEST_SHARE = 0.10
STEPS_A_SAVE = 15  # the save before is over
WORDS = (
    "lora=none",
    "trainer.global_batch_size=1",
    f"checkpoint.every_steps={STEPS_A_SAVE}",
    "checkpoint.keep_last=1",
)


def run(place, trials):
    """Train with a save in every trial, and compare two durations."""
    for part in place.parts(trials, len(trials)):
        yield from _train(place, part)


def _train(place, trials):
    """Yield the trials of one run."""
    name, steps = f"saves-{trials[0]}", STEPS_A_SAVE * (len(trials) + 1)
    place.forget(name)
    ended = {}
    is_over = threading.Event()
    looking = threading.Thread(
        target=_look, args=(place.root / name, ended, is_over), daemon=True
    )
    looking.start()
    words = [f"run.name={name}", f"trainer.num_train_steps={steps}", *WORDS]
    group = place.start([words], worker=WORKER)
    codes = group.wait()
    is_over.set()
    looking.join()
    if codes != [0]:
        raise RuntimeError(group.everything())
    lines = (place.root / name / "saves.jsonl").read_text().splitlines()
    saves = {s["step"]: s for s in map(json.loads, lines)}
    for index, number in enumerate(trials):
        save = saves[STEPS_A_SAVE * (index + 1)]
        yield _judge(number, save, ended, largest=LARGEST_SHARE * min(place.slack, 5))
    place.forget(name)


def _look(run, ended, is_over):
    """Note when each step is committed."""
    while not is_over.is_set():
        for step in committed(run):
            ended.setdefault(step, time.time())
        time.sleep(LOOK_EVERY_SECONDS)


def _judge(number, save, ended, *, largest):
    """Return the trial of one save, which may cost `largest` of its duration."""
    stood = save["returned"] - save["called"]
    lasted = ended[save["step"]] - save["called"]
    share = stood / lasted
    faults = [f"{share:.1%} of {lasted:.2f} s"] if share > largest else []
    facts = {"share": share, "stood_seconds": stood, "bytes": save["bytes"]}
    return make_trial(number, faults, seconds=lasted, **facts)


def notes(trials):
    largest = max(trial["share"] for trial in trials)
    size = trials[0]["bytes"] / 1e6
    return f"{largest:.1%} at most, of a state of {size:,.0f} MB"


SAVE_COST = Experiment(
    name="save_cost",
    test="a save",
    asked="costs the step loop 10 % of its duration at most",
    full=20,
    run=run,
    seconds="from the call to the commit",
    notes=notes,
)
