"""Compiled functions that run in turns: what each takes of time and memory.

Turns named programs and their arguments into the cheapest run of each. It refuses to
know what they compute; one process runs them all, so that a machine that changes its
pace changes everyone's.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

Program = tuple[Callable, tuple[jax.Array, ...]]


class Cost(NamedTuple):
    """Of one program.

    Attributes:
        processor_ms: Milliseconds of all cores together.
        wall_ms: Milliseconds on the clock.
        mib: Memory beside arguments and results.
    """

    processor_ms: float
    wall_ms: float
    mib: float


def compiled(function: Callable, *arguments: jax.Array) -> Program:
    """Return a function, compiled for its arguments, with them."""
    return jax.jit(function).lower(*arguments).compile(), arguments


def measure(programs: Mapping[str, Program], rounds: int) -> dict[str, Cost]:
    """Run all programs in turns; return the least time and the memory of each."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for turn in range(rounds + 1):  # the first warms up
        for name, (run, arguments) in programs.items():
            start = time.process_time(), time.perf_counter()
            jax.block_until_ready(run(*arguments))
            end = time.process_time(), time.perf_counter()
            if turn:
                runs[name].append((end[0] - start[0], end[1] - start[1]))
    return {
        name: Cost(
            *(1000 * min(seconds) for seconds in zip(*runs[name], strict=True)),
            run.memory_analysis().temp_size_in_bytes / 2**20,
        )
        for name, (run, _) in programs.items()
    }
