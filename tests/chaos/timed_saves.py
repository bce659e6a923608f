"""A child process: trains a larger model and writes for how long each save stops it.

Turns the words of jobs into runs of a preset that it makes first, and beside each
`saves.jsonl`: when a save was called for, and when the loop went on.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

from trainer.__main__ import compose
from trainer.config.ending import end
from trainer.config.simulated import prepare_devices

SIZES = {"num_layers": 24, "hidden_dim": 512, "intermediate_dim": 4096}


def work():
    words = json.loads(sys.argv[1])
    jobs = [compose(job) for job in words]
    prepare_devices(jobs[0])
    import trainer.tasks.train as training
    from tests.trainer.processes.larger_preset import write_larger
    from trainer.run import run

    train, codes = training.train, []
    for job in jobs:
        place = Path(job.run.root) / "larger"
        if not place.exists():
            write_larger(job.preset.name, place, **SIZES)
        job = dataclasses.replace(
            job, preset=dataclasses.replace(job.preset, name=str(place))
        )
        training.train = timed(train, Path(job.run.root) / job.run.name)
        codes.append(run(job))
    return max(codes)


def timed(train, directory):
    """Return the loop with saves that write when they began and when it went on."""
    import jax

    def loop(*given, hooks, **named):
        def save(state, progress, *more):
            called = time.time()
            hooks.save(state, progress, *more)
            line = {
                "step": progress.step,
                "called": called,
                "returned": time.time(),
                "bytes": sum(a.nbytes for a in jax.tree.leaves(state)),
            }
            with open(directory / "saves.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

        return train(*given, hooks=dataclasses.replace(hooks, save=save), **named)

    return loop


if __name__ == "__main__":
    end(work, debug=True)
