"""Two runs started in one directory: one trains, the other leaves and names it.

The winner is killed then, so that the next two find its lock and one takes it over;
the last of them goes on to the end.
"""

import signal
import time

from tests.chaos.directories import differences, names
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.workplace import LOOK_EVERY_SECONDS, PATIENCE_SECONDS

LONGEST_SECONDS = 3.0  # until the loser has left
TRIALS_A_DIRECTORY = 10
IN_USE = 9
WORDS = ("trainer.num_train_steps=300", "checkpoint.every_steps=50")


def run(place, numbers):
    """Start two at a time in the same directory, and compare what comes of it."""
    unbroken = place.unbroken("contest-unbroken", *WORDS)
    for part in place.parts(numbers, TRIALS_A_DIRECTORY):
        name = f"contest-{part[0]}"
        place.forget(name)
        trials = []
        for number in part:
            winner, facts = _contest(place, name)
            trials.append(facts)
            if number != part[-1]:
                winner.send_signal(signal.SIGKILL)
            code = winner.wait(PATIENCE_SECONDS)
        ended = [f"the last winner ended with {code}"] if code else []
        ended = ended or differences(place.root / name, unbroken)
        for number, facts in zip(part, trials, strict=True):
            yield make_trial(number, [*facts.pop("faults"), *ended], **facts)
        if not ended:
            place.forget(name)


def _contest(place, name):
    """Start two; return the one that goes on, and how the other one left."""
    words = [f"run.name={name}", *WORDS]
    since = time.perf_counter()
    groups = [place.start(words), place.start(words)]
    processes = [group.processes[0] for group in groups]
    until = time.monotonic() + PATIENCE_SECONDS
    while all(p.poll() is None for p in processes) and time.monotonic() < until:
        time.sleep(LOOK_EVERY_SECONDS)
    seconds = time.perf_counter() - since
    lost = next((i for i, p in enumerate(processes) if p.poll() is not None), 0)
    winner, said = processes[1 - lost], groups[lost].said(0)
    faults = []
    if processes[lost].returncode != IN_USE:
        faults.append(
            f"the loser ended with {processes[lost].returncode}: {said[-300:]}"
        )
    if f"process {winner.pid}" not in said:
        faults.append(f"process {winner.pid} is not named: {said[-300:]}")
    if seconds > LONGEST_SECONDS * place.slack:
        faults.append(f"the loser left after {seconds:.1f} s")
    if winner.poll() is not None:
        faults.append(f"the winner ended with {winner.returncode}")
    if "LOCK" not in names(place.root / name):
        faults.append("no lock is left")
    return winner, {"faults": faults, "seconds": round(seconds, 3)}


def notes(trials):
    return f"the last loser left in {max(t['seconds'] for t in trials):.1f} s"


TWO_IN_ONE = Experiment(
    name="two_in_one_directory",
    test="two runs started in one directory",
    asked="one winner, the loser leaves in 3 s naming the owner",
    full=50,
    run=run,
    seconds="until the loser has left",
    notes=notes,
)
