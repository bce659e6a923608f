"""One subject, one workload, one process: what it took, as a line of JSON.

Turns a name of `subjects/` and a workload into seconds and bytes. `peers.py` starts
it once for every subject and round:

    python tests/benchmarks/child.py ours '{"vocabulary_size": 32000}' --steps 5
"""

import argparse
import importlib
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from generation_workload import GenerationWorkload  # noqa: E402
from workload import Batch, Workload  # noqa: E402

WORKLOADS = {kind.__name__: kind for kind in (Workload, GenerationWorkload)}


def measure(
    subject: str,
    workload: Workload | GenerationWorkload,
    *,
    steps: int,
    options: dict[str, str],
) -> dict[str, Any]:
    """Import, build, compile and run a subject; return what each took.

    A subject is a module with `build(workload, **options)`, which returns a function
    from a batch to the loss, or to the number of new tokens, done when it returns;
    and with `versions`.
    """
    began = time.perf_counter()
    module = importlib.import_module(f"subjects.{subject}")
    imported = time.perf_counter()
    step = module.build(workload, **options)
    built = time.perf_counter()
    bytes_built = peak_bytes()
    batches = workload.batches()
    first_loss, first_seconds, _ = _timed(step, next(batches))
    first_step_at = time.time()
    rest = [_timed(step, next(batches)) for _ in range(steps)]
    return {
        "versions": module.versions(),
        "import_seconds": imported - began,
        "build_seconds": built - imported,
        "first_step_at": first_step_at,
        "first_step_seconds": first_seconds,
        "step_seconds": [seconds for _, seconds, _ in rest],
        "step_processor_seconds": [busy for _, _, busy in rest],
        "built_peak_bytes": bytes_built,
        "peak_bytes": peak_bytes(),
        **accelerator(),
        "losses": [first_loss, *(loss for loss, *_ in rest)],
    }


def _timed(
    step: Callable[[Any, Any], float], batch: Batch
) -> tuple[float, float, float]:
    """Return the loss, and seconds of the clock and of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    loss = float(step(*batch))
    return loss, time.perf_counter() - start, time.process_time() - busy


def peak_bytes() -> int:
    """Return the largest resident size of this process so far (Linux counts KiB)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def accelerator() -> dict[str, Any]:
    """Return name and largest use of the accelerator that was at work; none on a CPU.

    It asks the library that the subject has imported.
    """
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        most = torch.cuda.max_memory_allocated()
        return {"device_kind": torch.cuda.get_device_name(), "device_peak_bytes": most}
    if jax := sys.modules.get("jax"):
        device = jax.devices()[0]
        if device.platform != "cpu":
            most = device.memory_stats()["peak_bytes_in_use"]
            return {"device_kind": device.device_kind, "device_peak_bytes": most}
    return {}


def main() -> None:
    """Measure what the command line says; the last line of the output is the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject")
    parser.add_argument("workload", type=json.loads)
    parser.add_argument("--kind", choices=WORKLOADS, default=Workload.__name__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    words = parser.parse_args()
    workload = WORKLOADS[words.kind](**words.workload)
    result = measure(words.subject, workload, steps=words.steps, options=words.options)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
