"""One bit flipped, a file cut or gone: found before the first step, and named.

The newest of two checkpoints is damaged. The same command must stop and name the file
or an array; in every tenth trial `checkpoint.on_corrupt=previous` must go on from the
checkpoint before, and end as an unbroken run does.
"""

import json
import time

from tests.chaos.directories import differences, numbers, restored
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.resume_everywhere import leave_at
from tests.chaos.workplace import REPOSITORY

KINDS = ("flipped", "cut", "gone")
PREVIOUS, DAMAGED, LAST = 10, 20, 30  # steps
GOES_ON_EVERY = 10  # trials
STORAGE = 7
JOBS_A_PROCESS = 25
WORKER = REPOSITORY / "tests/chaos/attempts.py"
WORDS = (
    f"trainer.num_train_steps={LAST}",
    f"checkpoint.every_steps={PREVIOUS}",
    "checkpoint.keep_last=3",
)


def run(place, trials):
    """Damage a copy of the run in every trial, and try to go on."""
    unbroken = place.unbroken("damage-unbroken", *WORDS)
    for part in place.parts(trials, JOBS_A_PROCESS):
        done, jobs = {}, []
        for number in part:
            name = f"damage-{number}"
            place.forget(name)
            leave_at(unbroken, place.root / name, DAMAGED)
            random = place.draw("damage", number)
            done[number] = _damage(place.root / name, random, KINDS[number % 3])
            rule = "previous" if _goes_on(number) else "stop"
            jobs.append([f"run.name={name}", f"checkpoint.on_corrupt={rule}", *WORDS])
        since = time.perf_counter()
        group = place.start(jobs, worker=WORKER)
        group.wait()
        seconds = (time.perf_counter() - since) / len(part)
        for number in part:
            faults = _judge(place, number, done[number], unbroken)
            if not (place.root / f"damage-{number}.json").exists():
                faults = [f"no end: {group.said(0)[-300:]}"]
            yield make_trial(number, faults, seconds=seconds, **done[number])
            place.forget(f"damage-{number}")


def _goes_on(number):
    return number % GOES_ON_EVERY == GOES_ON_EVERY - 1


def _damage(run, random, kind):
    """Damage a file of the newest checkpoint; return which, and how."""
    step = run / f"checkpoints/{DAMAGED}"
    files = [path for path in sorted(step.rglob("*")) if path.is_file()]
    if kind != "gone":
        files = [file for file in files if file.stat().st_size]
    file = random.choice(files)
    content = bytearray(file.read_bytes())
    if kind == "gone":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(content[: random.randrange(len(content))])
    else:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        file.write_bytes(content)
    return {"kind": kind, "file": str(file.relative_to(step)), "bytes": len(content)}


def _judge(place, number, done, unbroken):
    """Return what was not found, not named, or not gone on from."""
    run, ended = place.root / f"damage-{number}", place.root / f"damage-{number}.json"
    if not ended.exists():
        return ["no end"]
    told = json.loads(ended.read_text())
    if _goes_on(number):
        if told["code"] or restored(run)[-1:] != [PREVIOUS]:
            return [f"went on from {restored(run)}: {told}"]
        return differences(run, unbroken)
    faults = []
    if told["code"] != STORAGE:
        faults.append(f"exit code {told['code']}: {told['said']}")
    if max(numbers(run)) > DAMAGED:
        faults.append(f"trained to step {max(numbers(run))}")
    said = "".join(told["said"].split())
    if done["file"] not in said and "damaged:trainable" not in said:
        faults.append(f"{done['file']} is not named: {told['said']}")
    return faults


def notes(trials):
    counts = {kind: sum(t["kind"] == kind for t in trials) for kind in KINDS}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


DAMAGE = Experiment(
    name="damage",
    test="one bit flipped, a file cut or gone in a checkpoint",
    asked="all found, array or file named",
    full=200,
    run=run,
    seconds="a start, others in its process",
    notes=notes,
)
