"""One configuration compiled for one topology, as a line of JSON.

Turns words of the command line into the step that `python -m trainer` would run, on
chips that are not here, and tells what the compiler says of it. The program itself is
written to `--keep FILE`, for who wants to know why it needs what it needs.

    python tests/benchmarks/subjects/tpu_program.py v5e:2x4 preset=gemma2_9b_en mesh=1x8
"""

import argparse
import importlib.metadata
import json
import math
import pathlib
import resource
import sys
import time

for place in (1, 3):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[place]))

import jax  # noqa: E402
from jax.errors import JaxRuntimeError  # noqa: E402
from jax.experimental import topologies  # noqa: E402
from subjects.compiled_memory import bytes_a_chip  # noqa: E402

from trainer.__main__ import compose  # noqa: E402
from trainer.tasks.program import StepProgram, step_program  # noqa: E402


def measure(topology: str, words: list[str], keep: pathlib.Path | None) -> dict:
    """Compile a configuration's step; return bytes a chip, seconds and versions."""
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    program = step_program(compose(words), described.devices)
    started, busy = time.perf_counter(), time.process_time()
    lowered = program.lower()
    found = {
        "chips": len(described.devices),
        "chip": described.devices[0].device_kind,
        "mesh": str(program.parts.choice),
        "state_bytes": state_bytes(program),
        "lower_seconds": time.perf_counter() - started,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "libtpu")
        },
    }
    try:
        compiled = lowered.compile()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found["refused"] = str(error)
    else:
        found |= bytes_a_chip(compiled.memory_analysis())
    found |= {
        "compile_seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - busy,
        "host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if keep is not None and "refused" not in found:
        keep.write_text(compiled.as_text())
    return found


def state_bytes(program: StepProgram) -> dict[str, int]:
    """Return what a chip holds between steps, and the batch, by what they are for."""
    state, frozen, batch = program.arguments()
    adapters = {path for path, v in program.parts.model.tree.items() if v.is_adapter}
    held = {**frozen, **state.trainable}
    return {
        "weights": sum(on_a_chip(x) for p, x in held.items() if p not in adapters),
        "adapters": sum(on_a_chip(x) for p, x in held.items() if p in adapters),
        "optimizer": sum(map(on_a_chip, jax.tree.leaves(state.slots))),
        "batch": sum(map(on_a_chip, batch.values())),
    }


def on_a_chip(x: jax.ShapeDtypeStruct) -> int:
    """Return the bytes of a chip's part of an array."""
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topology")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FILE")
    given = parser.parse_args()
    print(json.dumps(measure(given.topology, given.words, given.keep)), flush=True)
