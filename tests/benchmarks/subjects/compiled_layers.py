"""The step of a Gemma 2 with some number of layers, compiled for this CPU.

Prints how long lowering and compiling took, as a line of JSON; nothing is kept in a
compilation cache and no array is made.

    python tests/benchmarks/subjects/compiled_layers.py 48
"""

import dataclasses
import json
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import jax  # noqa: E402
from subjects.ours import config_of  # noqa: E402
from subjects.random_preset import random_preset  # noqa: E402
from workload import Workload  # noqa: E402

from gemma.lora import lora_settings  # noqa: E402
from trainer.__main__ import compose  # noqa: E402
from trainer.model.assemble import build_model  # noqa: E402
from trainer.tasks.program import StepProgram, build_step  # noqa: E402
from trainer.tasks.session import assemble  # noqa: E402
from trainer.tasks.state import build_optimizer  # noqa: E402


def program(layers: int) -> StepProgram:
    """Return the step over the shape of the comparison with peers, made deeper."""
    words = ["mesh=1x1", "trainer.global_batch_size=4", "data.sequence_length=256"]
    parts = assemble(compose(words), jax.devices()[:1], bytes_per_device=None)
    config = config_of(Workload(vocabulary_size=32000, num_layers=layers))
    model = build_model(
        random_preset(config), parts.mesh, dtype="float32", lora=lora_settings(8)
    )
    parts = dataclasses.replace(parts, model=model)
    optimizer = build_optimizer(parts)
    step = build_step(parts, optimizer)
    return StepProgram(parts=parts, optimizer=optimizer, step=step)


def main() -> None:
    """Compile and print."""
    made = program(int(sys.argv[1]))
    started, busy = time.perf_counter(), time.process_time()
    lowered = made.lower()
    lower_seconds = time.perf_counter() - started
    lowered.compile()
    print(
        json.dumps(
            {
                "lower_seconds": lower_seconds,
                "seconds": time.perf_counter() - started,
                "processor_seconds": time.process_time() - busy,
                "lines": lowered.as_text().count("\n"),
            }
        )
    )


if __name__ == "__main__":
    main()
