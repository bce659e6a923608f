"""SIGTERM in every phase of a run: it saves, says so with 83, and goes on.

The phases are told from what appears in the run's directory. A process can answer from
where it has taken the signal over, which `/proc` shows: before that Python itself has
run no line yet, and there is nothing to save. Nor is there where all is written: then
it may end as a finished run, too.
"""

import signal
import time
from pathlib import Path

from tests.chaos.directories import committed, differences, names, numbers
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.killing import SAVE_SECONDS, SAVES, Watch
from tests.chaos.workplace import wait_until
from trainer.tasks.run_directory import DONE
from trainer.tracking import read_events

PREEMPTED = 83
LAST, EVALUATED = 100, 20  # steps; and between evaluations
GRACE_SECONDS = 25.0  # of a spot machine's thirty
WORDS = (
    f"trainer.num_train_steps={LAST}",
    f"trainer.eval_every_steps={EVALUATED}",
    "checkpoint.every_steps=15",
    "data.eval_rows=400",
    "artifacts.preset=true",
)
SECONDS = {
    "import": 1.2,
    "compilation": 2.0,
    "warm-up": 0.8,
    "step": 0.3,
    "evaluation": 0.15,
    "saving": SAVE_SECONDS,
    "export": 0.1,
}
"""About how long each phase lasts, from where it is seen to begin."""
PHASES = tuple(SECONDS)


def run(place, numbers):
    """Stop a run of its own in every trial, and let it go on."""
    unbroken = place.unbroken("sigterm-unbroken", *WORDS)
    for (number,) in place.parts(numbers, 1):
        phase, name = PHASES[number % len(PHASES)], f"sigterm-{number}"
        place.forget(name)
        words = [f"run.name={name}", *WORDS]
        group = place.start([*words, *_only_in(phase)])
        random, watch = place.draw("sigterm", number), Watch(place.root / name)
        wait_until(_beginning(phase, group, watch, random), group)
        time.sleep(random.uniform(0, SECONDS[phase]))
        is_done = (place.root / name / DONE).exists()
        right = (0, PREEMPTED) if is_done else (PREEMPTED,)
        group.processes[0].send_signal(signal.SIGTERM)
        since = time.perf_counter()
        code = group.wait(GRACE_SECONDS * place.slack)[0]
        seconds = time.perf_counter() - since
        faults = _unsaved(place.root / name)
        if code not in right:
            faults.append(f"exit code {code}: {group.said(0)[-300:]}")
        group = place.start(words)
        code = group.wait()[0]
        if code:
            faults.append(f"went on to exit code {code}: {group.said(0)[-300:]}")
        else:
            faults += differences(place.root / name, unbroken)
        yield make_trial(number, faults, seconds=seconds, phase=phase)
        place.forget(name)


def _only_in(phase):
    """Return words that make a phase long enough to be met."""
    return ["trainer.compilation_cache=none"] if phase == "compilation" else []


def _beginning(phase, group, watch, random):
    """Return what tells that a phase has begun."""
    wanted, evaluation = random.randint(1, SAVES), EVALUATED * random.randint(1, 4)

    def evaluates():
        return max(numbers(watch.run), default=0) >= evaluation

    def exports():
        return bool(names(watch.run / "artifacts"))

    return {
        "import": lambda: _takes_sigterm(group.processes[0].pid),
        "compilation": lambda: bool(read_events(watch.run, "built")),
        "warm-up": lambda: bool(read_events(watch.run, "inputs")),
        "step": watch.has_trained,
        "evaluation": evaluates,
        "saving": lambda: watch.saves_begun() >= wanted,
        "export": exports,
    }[phase]


def _takes_sigterm(pid):
    """Return whether a process has a handler of its own for SIGTERM."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _unsaved(run):
    """Return what is missing of the last finished step."""
    trained = [s for s, line in numbers(run).items() if "train/loss" in line]
    saved = max(committed(run), default=0)
    last = max(trained, default=0)
    return [f"step {saved} is saved, of {last}"] if saved != last else []


def notes(trials):
    longest = max(trial["seconds"] for trial in trials)
    return f"the slowest left in {longest:.1f} s"


SIGTERM_PHASES = Experiment(
    name="sigterm_phases",
    test=f"SIGTERM in {len(PHASES)} phases ({', '.join(PHASES)})",
    asked="all saved with the right exit code (83)",
    full=10 * len(PHASES),
    run=run,
    seconds="from the signal to the end",
    notes=notes,
)
