"""How long a preset of 1 GB takes to load, against reading its file and KerasHub.

Turns ways of loading into a table of rates and memory, in
`tests/benchmarks/results/loading.md` and `loading.json`. Each run is a process of its
own, rounds are interleaved, and the files are in the system's cache for everyone.

    python tests/benchmarks/loading.py --python keras_hub=.venv-peers/bin/python
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
sys.path[:0] = [str(FOLDER), str(REPOSITORY)]

from comparison import markdown_table  # noqa: E402
from machine import OtherWork, machine_facts, sentence  # noqa: E402

PEERS_PYTHON = REPOSITORY / ".venv-peers/bin/python"
RUNS = {
    "read_keras": ("read", "keras", 1, "reading `model.weights.h5` into memory"),
    "mesh_keras": ("mesh", "keras", 1, "KerasHub's form onto a `1x1` mesh"),
    "mesh_keras_2": ("mesh", "keras", 2, "KerasHub's form onto a `1x2` mesh"),
    "read_hf": ("read", "hf", 1, "reading `model.safetensors` into memory"),
    "mesh_hf": ("mesh", "hf", 1, "Hugging Face's form onto a `1x1` mesh"),
    "mesh_hf_2": ("mesh", "hf", 2, "Hugging Face's form onto a `1x2` mesh"),
    "keras_hub": ("keras_hub", "keras", 1, "KerasHub: import and `from_preset`"),
    # last: whoever follows KerasHub gets its memory back from the system, slowly
    "ours": ("ours", "keras", 1, "`gemma`: import and `from_preset`"),
}
"""Name -> way, form of the directory, devices, title."""


def write_presets(folder: pathlib.Path) -> None:
    """Write a model of Gemma 3 270M's shape in float32, in both forms."""
    import numpy as np

    from gemma.presets import BUILT_IN, write_hf, write_preset

    config = BUILT_IN["gemma3_270m"].config
    shapes, rng = config.parameter_shapes(), np.random.default_rng(0)

    def arrays(path: str) -> np.ndarray:
        return 0.02 * rng.standard_normal(shapes[path], np.float32)

    for form, write in (("keras", write_preset), ("hf", write_hf)):
        write(
            folder / form,
            config=config,
            dtype="float32",
            arrays=arrays,
            vocabulary=None,
        )


def run_child(
    way: str, directory: pathlib.Path, *, devices: int, python: str
) -> dict[str, Any]:
    """Load once in a process of its own; what cannot run gives `failed`."""
    if not pathlib.Path(python).exists():
        return {"failed": "its interpreter is missing; see --python"}
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    others = OtherWork()
    done = subprocess.run(
        [python, str(FOLDER / "loading_child.py"), way, str(directory)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    result = json.loads(done.stdout.splitlines()[-1])
    return {**result, "other_cores": others.cores()}


def measure_all(
    folder: pathlib.Path, *, rounds: int, pythons: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Run every way once a round, one after the other."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for number in range(rounds):
        for name, (way, form, devices, _) in RUNS.items():
            python = pythons.get(way, sys.executable)
            result = run_child(way, folder / form, devices=devices, python=python)
            measured[name].append(result)
            print(f"round {number + 1}, {name}: {result}", flush=True)
    return measured


def ratio(measured: Mapping[str, Sequence[Mapping]], one: str, other: str) -> float:
    """Return the median over rounds of the seconds of `one` over those of `other`."""
    pairs = zip(measured[one], measured[other], strict=True)
    return statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)


def report(
    facts: Mapping[str, Any], measured: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """Return the page that is committed."""
    rows = [[RUNS[name][3], *_cells(results)] for name, results in measured.items()]
    header = ["", "seconds, median", "range", "GB/s", "CPU seconds", "memory"]
    parts = [
        "# Loading a preset of 1 GB",
        sentence(dict(facts)),
        "Gemma 3 270M's shape, float32, 1.07 GB, files in the system's cache. Reading "
        "is one `numpy.fromfile` into fresh memory. The mesh rows are a training "
        "run's stacked and sharded arrays, imports before; the last two count import, "
        "building and loading. Memory is the peak of anonymous memory above that "
        "before the call, over the bytes of the arrays. Each run is a process of its "
        "own, rounds interleaved; ratios are medians of the rounds' ratios.",
        markdown_table(header, rows),
        *_ratios(measured),
    ]
    return "\n\n".join(parts) + "\n"


def _ratios(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    found = []
    for name, other, text in (
        ("read_keras", "mesh_keras", "KerasHub's form loads at {:.2f} times the speed"),
        ("read_hf", "mesh_hf", "Hugging Face's form loads at {:.2f} times the speed"),
    ):
        if not _failed(measured[name]) and not _failed(measured[other]):
            found.append(text.format(ratio(measured, name, other)) + " of reading it.")
    if not _failed(measured["keras_hub"]):
        times = ratio(measured, "keras_hub", "ours")
        found.append(f"KerasHub takes {times:.1f} times as long as `gemma`.")
    cores = [
        result["other_cores"]
        for results in measured.values()
        for result in results
        if result.get("other_cores") is not None
    ]
    if cores:
        found.append(
            f"Other processes used {statistics.median(cores):.2f} cores during a run "
            f"in the median, {max(cores):.2f} at most."
        )
    return found


def _failed(results: Sequence[Mapping[str, Any]]) -> str | None:
    return next((r["failed"] for r in results if "failed" in r), None)


def _cells(results: Sequence[Mapping[str, Any]]) -> list[str]:
    if reason := _failed(results):
        return [reason, "", "", "", ""]
    seconds = [result["seconds"] for result in results]
    median = statistics.median(seconds)
    processor = statistics.median(result["processor_seconds"] for result in results)
    memory = max(result["memory_ratio"] for result in results)
    return [
        f"{median:.2f}",
        f"{min(seconds):.2f} to {max(seconds):.2f}",
        f"{results[0]['bytes'] / 1e9 / median:.2f}",
        f"{processor:.2f}",
        f"{memory:.2f}",
    ]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", nargs="*", default=[], metavar="WAY=PATH")
    parser.add_argument(
        "--output", type=pathlib.Path, default=FOLDER / "results" / "loading"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Measure and write both results."""
    words = parse(arguments)
    given = dict(word.split("=", 1) for word in words.python)
    pythons = {"keras_hub": str(PEERS_PYTHON)} | given
    facts = machine_facts()
    with tempfile.TemporaryDirectory(prefix="gemma-loading-") as folder:
        write_presets(pathlib.Path(folder))
        measured = measure_all(
            pathlib.Path(folder), rounds=words.rounds, pythons=pythons
        )
    kept = {"machine": facts, "runs": measured}
    words.output.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")
    words.output.with_suffix(".md").write_text(report(facts, measured))


if __name__ == "__main__":
    main(sys.argv[1:])
