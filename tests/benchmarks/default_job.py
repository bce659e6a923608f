"""Where the time of the default job goes, and how fast the command line answers.

Turns `python -m trainer` in a fresh directory, run a few times, into seconds a phase,
in `tests/benchmarks/results/default_job.md` and `.json`. It watches the run's
directory from outside and changes nothing of the run.

    make bench
    python tests/benchmarks/default_job.py [--runs 3] [KEY=VALUE ...]
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
from machine import machine_facts, sentence  # noqa: E402
from timeline import MEANINGS, PHASES, UNTOLD, Watcher, seconds_by_phase  # noqa: E402

LOOK_EVERY_SECONDS = 0.02
COMMAND_LINES = {
    "`--help`": ["--help"],
    "`--cfg job`": ["--cfg", "job"],
    "a misspelt key (exit 2)": ["lora.rnk=8"],
}
REPEATS = 5


def run_once(overrides: Sequence[str]) -> dict[str, float]:
    """Run the job in a directory of its own; return seconds by phase.

    Raises:
        RuntimeError: It ended with another exit code than 0.
    """
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as cache:
        command = [*_trainer(), f"run.root={root}", *overrides]
        watcher = Watcher(pathlib.Path(root))
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=_environment() | {"XDG_CACHE_HOME": cache},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            while process.poll() is None:
                watcher.look()
                time.sleep(LOOK_EVERY_SECONDS)
            watcher.end()
            if process.returncode:
                output.seek(0)
                raise RuntimeError(
                    f"the job ended with exit code {process.returncode}, expected 0:\n"
                    + output.read()[-2000:]
                )
    return seconds_by_phase(watcher.marks)


def answer_seconds(arguments: Sequence[str]) -> list[float]:
    """Return how long the command line took to answer, `REPEATS` times."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(
            [*_trainer(), *arguments],
            cwd=REPOSITORY,
            env=_environment(),
            capture_output=True,
            check=False,
        )
        seconds.append(time.perf_counter() - start)
    return seconds


def _trainer() -> list[str]:
    return [sys.executable, "-m", "trainer"]


def _environment() -> dict[str, str]:
    """Return an environment in which JAX follows the defaults."""
    unset = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS", "NPROC")
    return {name: value for name, value in os.environ.items() if name not in unset}


def report(
    facts: Mapping[str, Any],
    runs: Sequence[Mapping[str, float]],
    answers: Mapping[str, Sequence[float]],
    overrides: Sequence[str],
) -> str:
    """Return the page that is committed."""
    command = " ".join(["python -m trainer", *overrides])
    is_told = all(run["build"] for run in runs)
    meanings = MEANINGS if is_told else MEANINGS | UNTOLD
    shown = [p for p in PHASES if is_told or p != "build"]
    rows = [[p, f"{_median(r[p] for r in runs):.1f}", meanings[p]] for p in shown]
    totals = [sum(run.values()) for run in runs]
    rows.append(["together", f"{_median(totals):.1f}", _range(totals)])
    parts = [
        "# The default job",
        sentence(dict(facts)),
        f"`{command}` in a new directory, without compiled programs from an earlier "
        f"run; median of {len(runs)} run(s).",
        markdown_table(
            ["phase", "seconds", "what is in it"], rows, text_columns=(0, 2)
        ),
        f"The command line answers, median of {REPEATS}:",
        markdown_table(
            ["`python -m trainer`", "seconds", "range"],
            [[n, f"{_median(s):.2f}", _range(s)] for n, s in answers.items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _median(values: Any) -> float:
    return statistics.median(list(values))


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def main() -> int:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER / "results")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    words = parser.parse_args()
    facts = machine_facts()
    answers = {name: answer_seconds(line) for name, line in COMMAND_LINES.items()}
    runs = []
    for index in range(words.runs):
        runs.append(run_once(words.overrides))
        print(f"run {index + 1}: {_told(runs[-1])}", flush=True)
    page = report(facts, runs, answers, words.overrides)
    words.output.mkdir(parents=True, exist_ok=True)
    (words.output / "default_job.md").write_text(page)
    raw = {"machine": facts, "overrides": words.overrides, "runs": runs}
    raw["answers"] = answers
    (words.output / "default_job.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(page)
    return 0


def _told(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items())


if __name__ == "__main__":
    sys.exit(main())
