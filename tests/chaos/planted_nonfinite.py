"""A hundred batches of a thousand whose loss is not finite.

One token's embedding is as large as float32 allows, so that a row with it overflows,
and nothing else does: the loss is really not a number, in the real program. A run meets
ten such batches among a hundred. What it does with the others is compared with a run
that never had them.
"""

import json
import shutil
import time

import numpy as np

from tests.chaos.directories import (
    adapter,
    committed,
    differing_ends,
    differing_numbers,
    numbers,
    state,
)
from tests.chaos.experiment import Experiment, make_trial
from tests.chaos.rows import write_rows
from tests.chaos.workplace import REPOSITORY
from tests.trainer.training.planting import BYTE_ID, POISON, poison
from trainer.tracking import read_events

PLANTED_A_RUN, BATCHES_A_RUN = 10, 100
SEQUENCES = 2  # of a batch, a row each
PRESET = REPOSITORY / "tests/golden/keras_hub/gemma2"  # its logits are capped
WORDS = (
    f"trainer.global_batch_size={SEQUENCES}",
    "data=jsonl",
    "data.pack=false",
    "data.shuffle=false",
    "checkpoint.every_steps=5",
    "checkpoint.keep_last=100",
)


def run(place, trials):
    """Train with and without the rows that overflow, and compare every checkpoint."""
    shutil.rmtree(place.root / "poisoned", ignore_errors=True)
    preset = poison(PRESET, place.root / "poisoned", token_id=BYTE_ID)
    for part in place.parts(trials, PLANTED_A_RUN):
        random = place.draw("planted_nonfinite", part[0])
        planted = sorted(random.sample(range(BATCHES_A_RUN - 1), len(part)))
        steps = BATCHES_A_RUN - len(part)
        common = [f"preset.name={preset}", f"trainer.num_train_steps={steps}", *WORDS]
        names = [f"{kind}-{part[0]}" for kind in ("planted", "clean")]
        jobs = []
        for name, kept in zip(names, (True, False), strict=True):
            place.forget(name)
            rows = plant(place.root / f"{name}.jsonl", planted, kept=kept)
            jobs.append([f"run.name={name}", f"data.path={rows}", *common])
        since = time.perf_counter()
        group = place.start(jobs)
        codes = group.wait()
        seconds = (time.perf_counter() - since) / 2
        faults = [f"exit codes {codes}: {group.said(0)[-300:]}"]
        if codes == [0]:
            faults = _faults(*(place.root / name for name in names), planted)
        for number, batch in zip(part, planted, strict=True):
            yield make_trial(number, faults, seconds=seconds, batch=batch)
        for name in names:
            place.forget(name)


def plant(path, planted, *, kept):
    """Write rows in order; those of planted batches overflow, or are left out."""
    count = BATCHES_A_RUN * SEQUENCES
    rows = write_rows(path, count).read_text().splitlines()
    for batch in planted:
        row = json.loads(rows[batch * SEQUENCES])
        row["prompt"] += POISON
        rows[batch * SEQUENCES] = json.dumps(row)
    if not kept:
        rows = [r for n, r in enumerate(rows) if n // SEQUENCES not in planted]
    path.write_text("\n".join(rows) + "\n")
    return path


def _faults(run, clean, planted):
    """Return where a run and the one without its planted rows are not the same."""
    expected = numbers(clean)
    applied = [batch for batch in range(BATCHES_A_RUN) if batch not in planted]
    for step, batch in enumerate(applied, start=1):
        earlier = sum(other < batch for other in planted)
        expected[step]["train/skipped_steps"] = earlier
    found = differing_numbers(numbers(run), expected) + differing_ends(run, clean)
    if committed(run) != committed(clean):
        found.append(f"checkpoints {committed(run)}, not {committed(clean)}")
    else:
        wrong = [s for s in committed(run) if state(run, s) != state(clean, s)]
        found += [f"another state at steps {wrong}"] if wrong else []
    arrays = [np.frombuffer(a, np.float32) for a in adapter(run).values()]
    if not all(np.isfinite(array).all() for array in arrays):
        found.append("weights that are not finite")
    return found + _uncounted(read_events(run, "skipped"), planted)


def _uncounted(events, planted):
    """Return what the run does not tell of the batches that were planted."""
    expected = [
        {"step": batch + 1 - earlier, "skipped_steps": earlier + 1}
        for earlier, batch in enumerate(planted)
    ]
    told = [
        {name: event[name] for name in ("step", "skipped_steps")} for event in events
    ]
    found = [] if told == expected else [f"told {told}, not {expected}"]
    for event, batch in zip(events, planted, strict=False):
        lines = [batch * SEQUENCES + row + 1 for row in range(SEQUENCES)]
        if [int(place.rpartition(":")[2]) for place in event["rows"]] != lines:
            found.append(f"rows {event['rows']}, not lines {lines}")
    return found


PLANTED = Experiment(
    name="planted_nonfinite",
    test="100 non-finite steps planted in 1,000",
    asked="no bad weight, all counted, state across each bit-identical",
    full=100,
    run=run,
    seconds="a run of a hundred batches",
)
