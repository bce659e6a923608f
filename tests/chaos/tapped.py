"""A child process: runs jobs and writes down the rows of every step they make.

Turns the words of several jobs into runs, and every batch that a step is called with
into a line: its sequences by number, each the token ids of its rows. All calls pass
unchanged.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from trainer.__main__ import compose
from trainer.config.ending import end
from trainer.config.simulated import prepare_devices


def work():
    jobs = [compose(words) for words in json.loads(sys.argv[1])]
    prepare_devices(jobs[0])
    import trainer.tasks.train as training
    from trainer.run import run

    train, codes = training.train, []
    for job in jobs:
        index = job.distributed.process_index or 0
        place = Path(os.environ["TAP"]) / f"{job.run.name}-{index}.jsonl"
        with open(place, "a") as file:
            training.train = tapped(train, file)
            codes.append(run(job))
    return max(codes)


def tapped(train, file):
    """Return the loop with a step that first writes what it is called with."""

    def loop(state, frozen, step, *rest, **named):
        def noted(state, frozen, arrays):
            file.write(json.dumps(local_rows(arrays)) + "\n")
            return step(state, frozen, arrays)

        return train(state, frozen, noted, *rest, **named)

    return loop


def local_rows(arrays):
    """Return the rows of this process's sequences, by number in the global batch."""
    ids, segments = arrays["token_ids"], arrays["segment_ids"]
    count, length = ids.shape[0] * ids.shape[1], ids.shape[2]
    order = np.arange(count).reshape(ids.shape[:2])
    rows = {}
    pairs = zip(ids.addressable_shards, segments.addressable_shards, strict=True)
    for tokens, parts in pairs:
        assert tokens.index == parts.index
        numbers = order[tokens.index[:2]].ravel()
        sequences = np.asarray(tokens.data).reshape(-1, length)
        owners = np.asarray(parts.data).reshape(-1, length)
        for number, sequence, owner in zip(numbers, sequences, owners, strict=True):
            rows[int(number)] = [
                sequence[owner == row].tolist() for row in range(1, owner.max() + 1)
            ]
    return rows


if __name__ == "__main__":
    end(work, debug=True)
