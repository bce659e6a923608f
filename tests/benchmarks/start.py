"""From the command to the first step: without and with kept programs, beside a peer.

Turns the default job, started in turns with an empty and a filled cache of compiled
programs, into seconds to its first line of `train/loss`, in
`tests/benchmarks/results/start.md` and `.json`. The peer only imports KerasHub.

    python tests/benchmarks/start.py [--rounds 3] [--keras-hub DIR/bin/python]
    python tests/benchmarks/start.py --name start_270m --words preset.name=DIR ...
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
sys.path.insert(0, str(FOLDER))

from comparison import markdown_table  # noqa: E402
from machine import OtherWork, machine_facts, sentence  # noqa: E402

STEPS = "trainer.num_train_steps=1"
LOOK_EVERY_SECONDS = 0.02
UNSET = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "NPROC", "KERAS_BACKEND")
NAMES = {
    "compiled": "the first start, which compiles",
    "kept": "the second, with kept programs",
    "keras_hub": "KerasHub, its import alone",
}


def seconds_to_first_step(cache: str, words: Sequence[str] = ()) -> float:
    """Run a job for a step; return when the step's line appeared.

    Args:
        cache: The user's cache directory.
        words: Of the command line; none is the default job.

    Raises:
        RuntimeError: It ended without one.
    """
    with tempfile.TemporaryDirectory() as root:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", f"run.root={root}", STEPS, *words],
            cwd=REPOSITORY,
            env=_environment() | {"XDG_CACHE_HOME": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        first = None
        while process.poll() is None:
            if first is None and _has_step(pathlib.Path(root)):
                first = time.perf_counter() - start
            time.sleep(LOOK_EVERY_SECONDS)
    if process.returncode or first is None:
        raise RuntimeError(f"expected a step and exit code 0, got {process.returncode}")
    return first


def import_seconds(python: str) -> float:
    """Return how long a process takes that imports KerasHub on JAX."""
    start = time.perf_counter()
    subprocess.run(
        [python, "-c", "import keras_hub"],
        env=_environment() | {"KERAS_BACKEND": "jax"},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


def _has_step(root: pathlib.Path) -> bool:
    files = root.glob("*/metrics.jsonl")
    return any('"train/loss"' in file.read_text() for file in files)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in UNSET}


def report(
    facts: Mapping[str, Any],
    rounds: Sequence[Mapping[str, float]],
    job: Sequence[str] = (),
) -> str:
    """Return the page that is committed; ratios are medians over rounds."""
    rows = []
    for name, words in NAMES.items():
        seconds = [r[name] for r in rounds if name in r]
        if not seconds:
            continue
        ratio = statistics.median(r[name] / r["kept"] for r in rounds)
        shown = f"{min(seconds):.1f} to {max(seconds):.1f}"
        median = f"{statistics.median(seconds):.1f}"
        rows.append([words, median, shown, f"{ratio:.1f}"])
    busy = [r["other_cores"] for r in rounds if r.get("other_cores") is not None]
    others = f" Other work kept {statistics.mean(busy):.1f} cores busy." if busy else ""
    return "\n\n".join(
        [
            "# From the command to the first step",
            sentence(dict(facts)) + others,
            f"`{' '.join(['python -m trainer', STEPS, *_shown(job)])}`: seconds "
            "until step 1 is told, after the samples and the evaluation before it. "
            f"{len(rounds)} round(s), in turns; ratios within a round.",
            markdown_table(["start", "seconds", "range", "times the second"], rows),
        ]
    )


def _shown(words: Sequence[str]) -> list[str]:
    """Return words without the place of a preset on this machine."""
    place = "preset.name=/"
    return ["preset.name=DIR" if w.startswith(place) else w for w in words]


def main() -> int:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keras-hub", metavar="PYTHON")
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER / "results")
    parser.add_argument("--name", default="start", help="of the two files there")
    parser.add_argument("--words", nargs="*", default=[], help="of the command line")
    words = parser.parse_args()
    facts, rounds = machine_facts(), []
    for _ in range(words.rounds):
        with tempfile.TemporaryDirectory() as cache:
            others = OtherWork()
            measured = {
                name: seconds_to_first_step(cache, words.words)
                for name in list(NAMES)[:2]
            }
        if words.keras_hub:
            measured["keras_hub"] = import_seconds(words.keras_hub)
        rounds.append(measured | {"other_cores": others.cores()})
        print(json.dumps(rounds[-1]), flush=True)
    page = report(facts, rounds, words.words) + "\n"
    words.output.mkdir(parents=True, exist_ok=True)
    (words.output / f"{words.name}.md").write_text(page)
    raw = {"machine": facts, "rounds": rounds}
    (words.output / f"{words.name}.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
