"""Saves a state some times while a loop of steps runs on; prints one line of JSON."""

import json
import pathlib
import statistics
import sys
import tempfile
import time

import jax

from trainer.checkpoint import Store, digests

ARRAYS, SHAPE = 24, (6, 1024, 1024)
STEPS_BETWEEN = 4


def make_state():
    make = jax.jit(lambda key: jax.random.normal(key, SHAPE))
    keys = jax.random.split(jax.random.key(0), ARRAYS)
    return {f"array_{i}": make(key) for i, key in enumerate(keys)}


def change_all(state):
    return {name: array * 1.0001 for name, array in state.items()}


def timed(call, *given):
    start = time.perf_counter()
    result = jax.block_until_ready(call(*given))
    return time.perf_counter() - start, result


def measure(directory, saves):
    state = jax.block_until_ready(make_state())
    change = jax.jit(change_all, donate_argnums=0)
    _, state = timed(change, state)
    digests(state)  # compiled before, as a run has by its second save
    alone = []
    for _ in range(STEPS_BETWEEN):
        seconds, state = timed(change, state)
        alone.append(seconds)
    stood, lasted, steps = [], [], []
    with Store(directory, keep_last=1) as store:
        for step in range(1, saves + 1):
            start = time.perf_counter()
            store.save(step, state, {})
            stood.append(time.perf_counter() - start)
            after, state = timed(change, state)
            store.wait()
            lasted.append(time.perf_counter() - start)
            steps.append(after)
    return {
        "bytes": sum(array.nbytes for array in state.values()),
        "digest_seconds": timed(digests, state)[0],
        "step_seconds": statistics.median(alone),
        "stood_seconds": stood,
        "next_step_seconds": steps,
        "lasted_seconds": lasted,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as place:
        measured = measure(pathlib.Path(place) / "checkpoints", int(sys.argv[1]))
    print(json.dumps(measured))
