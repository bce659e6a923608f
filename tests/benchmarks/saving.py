"""For how long a save holds up the loop, of the time that it takes.

Turns saves of a state of 604 MB, in a process of their own, into medians, in
`results/saving.md` and its JSON.

    python tests/benchmarks/saving.py [--saves 9] [--place DIRECTORY] [--out DIRECTORY]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from comparison import markdown_table  # noqa: E402
from machine import machine_facts, sentence  # noqa: E402

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parents[1]
CHILD = HERE / "subjects" / "saves.py"


def measure(saves: int, place: str) -> dict:
    """Save `saves` times below `place` on the CPU."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(CHILD), str(saves), place]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(facts: dict, measured: dict) -> str:
    """Return the page."""
    lasted = statistics.median(measured["lasted_seconds"])
    shares = [
        stood / whole
        for stood, whole in zip(
            measured["stood_seconds"], measured["lasted_seconds"], strict=True
        )
    ]

    def row(name: str, seconds: float) -> list[str]:
        return [name, f"{seconds:.3f} s", f"{seconds / lasted:.1%}"]

    rows = [
        row("the save, from the call to the commit", lasted),
        row("the loop stands still", statistics.median(measured["stood_seconds"])),
        row("digests of all arrays, if one waits", measured["digest_seconds"]),
        row("the next step", statistics.median(measured["next_step_seconds"])),
        row("a step alone", measured["step_seconds"]),
    ]
    table = markdown_table(["", "median", "of the save"], rows, text_columns=(0,))
    size, saves = measured["bytes"] / 1e6, len(shares)
    how = (
        f"{size:,.0f} MB in float32, {saves} saves; the loop stands still for "
        f"{max(shares):.1%} of a save at most. {sentence(facts)}"
    )
    return "\n".join([_INTRODUCTION, table, "", how, ""])


def main() -> None:
    """Save some times and write `saving.json` and `saving.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saves", type=int, default=9)
    parser.add_argument("--place", default=tempfile.gettempdir())
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results")
    words = parser.parse_args()
    facts, measured = machine_facts(), measure(words.saves, words.place)
    raw = {"machine": facts, "measured": measured}
    text = json.dumps(raw, indent=2, sort_keys=True) + "\n"
    (words.out / "saving.json").write_text(text)
    (words.out / "saving.md").write_text(report(facts, measured))
    print(report(facts, measured))


_INTRODUCTION = """# What a save costs the loop

The loop goes on as soon as its arrays may be given to the next step: digests are
computed beside it, and files, their hashes and the record are written by threads. On a
CPU the next step then shares the cores with them, and finds its memory still in use:
it writes to fresh pages, which no accelerator does. `tests/benchmarks/saving.py`
measures again.
"""


if __name__ == "__main__":
    main()
