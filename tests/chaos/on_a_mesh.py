"""A child process: runs jobs, then writes what their checkpoints hold on their mesh.

Turns the words of several jobs into runs, one after the other, and beside each
`arrays.json`: for every step that is kept, the SHA-256 of each array.
"""

import hashlib
import json
import sys

import numpy as np

from tests.chaos.directories import ARRAYS, NOT_FINITE
from trainer.__main__ import compose
from trainer.config.ending import end
from trainer.config.simulated import prepare_devices


def work():
    jobs = [compose(words) for words in json.loads(sys.argv[1])]
    prepare_devices(jobs[0])
    from trainer.run import run

    codes = []
    for job in jobs:
        codes.append(run(job))
        write_hashes(job)
    return max(codes)


def write_hashes(config):
    """Restore as the run does, on its mesh, and write a hash of every array."""
    from trainer.checkpoint import Store
    from trainer.tasks.run_directory import RunDirectory
    from trainer.tasks.session import build_session
    from trainer.tasks.state import build_optimizer, shapes_of_state

    session, directory = build_session(config), RunDirectory(config)
    like = shapes_of_state(session.model, build_optimizer(session))
    with Store(directory.checkpoints, 1, read_only=True) as store:
        hashes = {
            step: {n: hashed(a) for n, a in store.restore(step, like)[0].items()}
            for step in store.steps()
        }
    (directory.path / ARRAYS).write_text(json.dumps(hashes))


def hashed(array):
    """Return the SHA-256 of an array, unless it has a number that is not finite."""
    values = np.asarray(array)
    if not np.isfinite(values).all():
        return NOT_FINITE
    return hashlib.sha256(values.tobytes()).hexdigest()


if __name__ == "__main__":
    end(work, debug=True)
