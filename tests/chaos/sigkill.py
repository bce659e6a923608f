"""SIGKILL at random moments, two fifths of them aimed into a save.

A run is killed up to five times, each time after it went on, and then left alone: it
ends on its own, bit for bit as a run that nobody touched.
"""

import signal
import time

from tests.chaos.directories import differences
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.killing import (
    AIMS,
    Watch,
    await_moment,
    lost_since,
    what_was_killed,
)
from tests.chaos.workplace import wait_until

WORDS = (
    "trainer.num_train_steps=180",
    "trainer.eval_every_steps=60",
    "checkpoint.every_steps=3",
)
KILLS_A_RUN = 5


def run(place, numbers):
    """Kill runs five times each, and compare every one with an unbroken run."""
    unbroken = place.unbroken("sigkill-unbroken", *WORDS)
    for part in place.parts(numbers, KILLS_A_RUN):
        name = f"sigkill-{part[0]}"
        place.forget(name)
        kills = _kill_often(place, name, part)
        seconds, ended = _leave_alone(place, name, kills[-1])
        ended = ended or differences(place.root / name, unbroken)
        for number, kill in zip(part, kills, strict=True):
            faults = [*kill.pop("faults"), *ended]
            yield make_trial(number, faults, seconds=seconds, **kill)
        if not ended:
            place.forget(name)


def _kill_often(place, name, part):
    """Kill the run at a moment of each trial; return what every kill left."""
    kills = []
    for number in part:
        watch = Watch(place.root / name)
        group = place.start([f"run.name={name}", *WORDS])
        aim = AIMS[number % len(AIMS)]
        await_moment(aim, place.draw("sigkill", number), watch, group)
        group.processes[0].send_signal(signal.SIGKILL)
        code = group.wait()[0]
        if kills:
            kills[-1]["faults"] += lost_since(kills[-1], watch)
        missed = [] if code == -signal.SIGKILL else [f"ended with {code} unkilled"]
        kills.append({**what_was_killed(aim, watch), "faults": missed})
    return kills


def _leave_alone(place, name, kill):
    """Start once more; return the seconds until it went on, and faults."""
    watch = Watch(place.root / name)
    since = time.perf_counter()
    group = place.start([f"run.name={name}", *WORDS])
    wait_until(lambda: watch.went_on_from() is not None, group)
    seconds = time.perf_counter() - since
    code = group.wait()[0]
    kill["faults"] += lost_since(kill, watch)
    return seconds, [] if code == 0 else [f"exit code {code}: {group.said(0)[-300:]}"]


def notes(trials):
    inside = sum(trial["inside_save"] for trial in trials)
    return f"{inside} died inside a save"


SIGKILL = Experiment(
    name="sigkill",
    test="SIGKILL at random moments, two fifths of them inside a save",
    asked="all continue unaided, nothing after the last commit lost, losses and final "
    "weights bit-identical, no temporary directories left",
    full=100,
    run=run,
    seconds="from the start to the restored checkpoint",
    notes=notes,
)
