"""SIGKILL for one of two processes: the other leaves, and both go on together.

A run is killed up to five times, each time after it went on, and then left alone: it
ends bit for bit as one of two processes that nobody touched.
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

LONGEST_SECONDS = 30  # until the survivor has left
KILLS_A_RUN = 5
PEER_LOST = 6
WORDS = (
    "mesh=2x1",
    "trainer.num_train_steps=90",
    "checkpoint.every_steps=3",
    "distributed.initialize_seconds=15",
    "distributed.heartbeat_seconds=4",
)


def run(place, numbers):
    """Kill one of two, five times a run, and compare with an unbroken run of two."""
    unbroken = place.unbroken("pair-unbroken", *WORDS, processes=2)
    for part in place.parts(numbers, KILLS_A_RUN):
        name = f"pair-killed-{part[0]}"
        place.forget(name)
        kills, watches = [], []
        for number in part:
            watches.append(Watch(place.root / name))
            kills.append(_kill_one(place, name, number, watches[-1]))
        watches.append(Watch(place.root / name))
        group = place.start([f"run.name={name}", *WORDS], processes=2)
        codes = group.wait()
        for kill, next_start in zip(kills, watches[1:], strict=True):
            kill["faults"] += lost_since(kill, next_start)
        ended = [f"exit codes {codes}: {group.everything()}"] if any(codes) else []
        ended = ended or differences(place.root / name, unbroken)
        for number, kill in zip(part, kills, strict=True):
            yield make_trial(number, [*kill.pop("faults"), *ended], **kill)
        if not ended:
            place.forget(name)


def _kill_one(place, name, number, watch):
    """Kill one process at a moment of the trial; return how the other one left."""
    random = place.draw("sigkill_pair", number)
    group = place.start([f"run.name={name}", *WORDS], processes=2)
    aim, victim = AIMS[number % len(AIMS)], random.randint(0, 1)
    await_moment(aim, random, watch, group)
    group.processes[victim].send_signal(signal.SIGKILL)
    since = time.perf_counter()
    codes = group.wait(LONGEST_SECONDS * place.slack)
    seconds = round(time.perf_counter() - since, 3)
    faults = []
    if codes[victim] != -signal.SIGKILL:
        faults.append(f"ended with {codes[victim]} unkilled")
    if codes[1 - victim] != PEER_LOST:
        faults.append(f"the survivor ended with {codes[1 - victim]}")
    killed = what_was_killed(aim, watch)
    return {**killed, "victim": victim, "seconds": seconds, "faults": faults}


def notes(trials):
    longest = max(trial["seconds"] for trial in trials)
    inside = sum(trial["inside_save"] for trial in trials)
    return f"{inside} died inside a save; the survivor left in {longest:.0f} s at most"


SIGKILL_PAIR = Experiment(
    name="sigkill_pair",
    test="the same with 2 processes, one killed",
    asked="the same; the survivor leaves within 30 s",
    full=25,
    run=run,
    seconds="until the survivor has left",
    notes=notes,
)
