"""1, 2 and 4 processes take turns in one epoch of 1,003 rows, packed or not.

What every process puts on its devices is written down, and put together again by the
number of the sequence: each row comes once an epoch, in the order of an unbroken run.
"""

import itertools
import json
import time

from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.rows import write_rows
from tests.chaos.workplace import REPOSITORY

ROWS = 1003
COUNTS = (1, 2, 4)
TRIALS_AT_A_TIME = 4
ORDERS = list(itertools.permutations(COUNTS))
STEPS = {True: 70, False: 130}  # more than an epoch, packed and not
MESHES = {1: ("1x1",), 2: ("2x1", "1x2"), 4: ("4x1", "2x2", "1x4")}
WORKER = REPOSITORY / "tests/chaos/tapped.py"
LENGTHS = {True: 64, False: 32}  # of a sequence, two rows packed and one not
WORDS = ("data=jsonl", "checkpoint.every_steps=1000", "data.shuffle=true")


def run(place, numbers):
    """Run trials in three stages; those with as many processes share them."""
    rows = write_rows(place.root / "counts.jsonl", ROWS)
    tap = place.root / "tap"
    tap.mkdir(exist_ok=True)
    for part in place.parts(numbers, TRIALS_AT_A_TIME):
        plans = {number: _plan(place, number) for number in part}
        yield from _switch(place, plans, rows, tap)


def _switch(place, plans, rows, tap):
    """Yield the trials of some plans."""
    for name in (*map(_name, plans), *map(_unbroken, STEPS)):
        place.forget(name)
        for file in tap.glob(f"{name}-*"):
            file.unlink()
    how = {"worker": WORKER, "TAP": str(tap)}
    words = (*WORDS, f"data.path={rows}")
    packed = {plan["pack"] for plan in plans.values()}
    alone = [_job(_unbroken(p), p, STEPS[p], "1x1", words) for p in packed]
    place.finish(alone, **how)
    since = time.perf_counter()
    trouble = [
        fault
        for stage in range(len(COUNTS))
        for count in COUNTS
        for fault in _stage(place, plans, words, stage=stage, count=count, how=how)
    ]
    seconds = (time.perf_counter() - since) / len(plans)
    for number, plan in plans.items():
        faults = trouble or _faults(tap, number, plan)
        shown = {"processes": plan["order"], "switched_at": plan["ends"][:2]}
        yield make_trial(number, faults, seconds=seconds, pack=plan["pack"], **shown)


def _plan(place, number):
    """Return how often processes are how many, and until which steps."""
    random, pack = place.draw("process_counts", number), number % 2 == 0
    last = STEPS[pack]
    ends = [random.randint(5, last // 3), random.randint(last // 3 + 1, 2 * last // 3)]
    order = ORDERS[number // 2 % len(ORDERS)]
    meshes = [random.choice(MESHES[count]) for count in order]
    return {"pack": pack, "order": order, "meshes": meshes, "ends": [*ends, last]}


def _stage(place, plans, words, *, stage, count, how):
    """Let the trials that have `count` processes now go on; return what failed."""
    jobs = [
        _job(_name(n), plan["pack"], plan["ends"][stage], plan["meshes"][stage], words)
        for n, plan in plans.items()
        if plan["order"][stage] == count
    ]
    if not jobs:
        return []
    group = place.start(jobs, processes=count, **how)
    codes = group.wait()
    return [f"exit codes {codes}: {group.everything()}"] if any(codes) else []


def _job(name, pack, steps, mesh, words):
    told = [f"trainer.num_train_steps={steps}", f"mesh={mesh}"]
    told += [f"data.pack={str(pack).lower()}", f"data.sequence_length={LENGTHS[pack]}"]
    return [f"run.name={name}", *told, *words]


def _name(number):
    return f"counts-{number}"


def _unbroken(pack):
    return f"counts-{'packed' if pack else 'single'}"


def _faults(tap, number, plan):
    """Return what is wrong with the rows of a trial."""
    found = []
    for part, count in enumerate(plan["order"]):
        begin = plan["ends"][part - 1] if part else 0
        found += _batches(tap, _name(number), count, plan, begin, plan["ends"][part])
    expected = _read(tap / f"{_unbroken(plan['pack'])}-0.jsonl")
    faults = [] if found == expected else ["not the rows of one process, in its order"]
    rows = [
        tuple(r) for b in found for _, sequence in sorted(b.items()) for r in sequence
    ]
    for start in range(0, len(rows) - ROWS + 1, ROWS):
        if len(set(rows[start : start + ROWS])) != ROWS:
            faults.append(f"not each row once in epoch {start // ROWS}")
    return faults if len(rows) >= ROWS else [*faults, f"{len(rows)} rows in all"]


def _batches(tap, name, count, plan, begin, end):
    """Return the batches of a stage, put together from all its processes."""
    batches = [{} for _ in range(end - begin)]
    for index in range(count):
        earlier = _steps_before(plan, index, begin)
        lines = _read(tap / f"{name}-{index}.jsonl")[earlier : earlier + end - begin]
        for batch, part in zip(batches, lines, strict=True):
            assert all(batch.get(key, rows) == rows for key, rows in part.items())
            batch |= part
    return batches


def _steps_before(plan, index, begin):
    """Return how many batches a process had before a stage: it was not in all."""
    starts = [0, *plan["ends"]]
    return sum(
        end - start
        for start, end, count in zip(starts, plan["ends"], plan["order"], strict=False)
        if end <= begin and index < count
    )


def _read(path):
    lines = path.read_text().splitlines()
    return [{int(k): v for k, v in json.loads(line).items()} for line in lines]


PROCESS_COUNTS = Experiment(
    name="process_counts",
    test="process count 1, 2, 4 switched mid-epoch over 1,003 rows",
    asked="each row exactly once",
    full=2 * len(ORDERS),
    run=run,
    seconds="a trial's share of the processes",
)
