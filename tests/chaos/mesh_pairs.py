"""Restoring on every mesh what was trained on every other one.

A run trains on one mesh and saves; a copy of its directory goes on for one more step
on another. All that share a number of devices share a process.
"""

import itertools
import math
import time

from tests.chaos.directories import ARRAYS, arrays, numbers
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.resume_everywhere import leave_at
from tests.chaos.workplace import REPOSITORY

MESHES = ("1x1", "1x2", "1x8", "8x1", "2x4", "4x2")
PAIRS = list(itertools.permutations(MESHES, 2))
PAIRS_AT_A_TIME = 10
SAVED, LAST = 5, 6
TOLERANCE = 1e-6  # relative: sums in float32 in another order
WORKER = REPOSITORY / "tests/chaos/on_a_mesh.py"
WORDS = (
    f"trainer.num_train_steps={LAST}",
    f"checkpoint.every_steps={SAVED}",
    "checkpoint.keep_last=2",
)


def run(place, numbers):
    """Train on the first mesh of each pair, go on on the second, and compare."""
    for part in place.parts(numbers, PAIRS_AT_A_TIME):
        yield from _go_on(place, {number: PAIRS[_spread(number)] for number in part})


def _go_on(place, pairs):
    """Yield the trials of some pairs."""
    sources = {f"pair-{first}": first for first, _ in pairs.values()}
    _run_all(place, {n: m for n, m in sources.items() if not (place.root / n).exists()})
    started = {}
    for first, second in pairs.values():
        name = f"pair-{first}-{second}"
        place.forget(name)
        leave_at(place.root / f"pair-{first}", place.root / name, SAVED)
        started[name] = second
    since = time.perf_counter()
    said = _run_all(place, started)
    seconds = (time.perf_counter() - since) / len(pairs)
    for number, (first, second) in pairs.items():
        name = f"pair-{first}-{second}"
        facts = {"pair": [first, second], "seconds": seconds}
        if not (place.root / name / ARRAYS).exists():
            yield make_trial(number, [f"no end: {said[second]}"], **facts)
            continue
        faults, change = _compare(place.root / f"pair-{first}", place.root / name)
        yield make_trial(number, faults, relative_change=change, **facts)


def _spread(number):
    """Return the place of a trial's pair: a tenth of them has many meshes."""
    return number * 11 % len(PAIRS)  # 11 and 30 have no common divisor


def _run_all(place, meshes):
    """Run names on their meshes, those of as many devices in one process."""
    said = {}
    for devices in sorted({_devices(mesh) for mesh in meshes.values()}):
        chosen = {n: m for n, m in meshes.items() if _devices(m) == devices}
        jobs = [[f"run.name={n}", f"mesh={m}", *WORDS] for n, m in chosen.items()]
        group = place.start(jobs, devices=devices, worker=WORKER)
        group.wait()
        said |= {mesh: group.said(0)[-300:] for mesh in chosen.values()}
    return said


def _devices(mesh):
    return math.prod(map(int, mesh.split("x")))


def _compare(source, moved):
    """Return faults, and by how much the loss of the next step is another."""
    saved, found = (arrays(run)[SAVED] for run in (source, moved))
    faults = [] if saved == found and saved else ["another hash of an array"]
    expected, loss = (numbers(run)[LAST]["train/loss"] for run in (source, moved))
    change = abs(loss - expected) / abs(expected)
    if change > TOLERANCE:
        faults.append(f"loss {loss} at step {LAST}, not {expected}")
    return faults, change


def notes(trials):
    largest = max(trial.get("relative_change", 0.0) for trial in trials)
    return f"the next loss within {largest:.1e}"


MESH_PAIRS = Experiment(
    name="mesh_pairs",
    test=f"restore between all ordered pairs of {' '.join(MESHES)}",
    asked="equal hashes of every array; next loss within 1e-6",
    full=len(PAIRS),
    run=run,
    seconds="a run of one step, others in its process",
    notes=notes,
)
