"""What stands in a run's directory, while it is written and afterwards.

Turns the directory into steps, numbers and faults. It refuses to know how the run came
to be what it is.
"""

import json
import re
from pathlib import Path

import h5py

from trainer.tracking import read_events, read_metrics

MEASURED = re.compile(r"second|memory|wait|flops")  # another number every time
TEMPORARY = re.compile(r"tmp|LOCK|deleting|\.part|~$")
ARRAYS, NOT_FINITE = "arrays.json", "not finite"  # what `on_a_mesh.py` writes
SHOWN = 3  # of the steps that differ


def committed(run: Path) -> list[int]:
    """Return the steps whose checkpoints are whole, oldest first."""
    return sorted(int(name) for name in names(run / "checkpoints") if name.isdecimal())


def unfinished(run: Path) -> set[str]:
    """Return the checkpoints that are being written, or were when the run died."""
    return {name for name in names(run / "checkpoints") if "tmp" in name}


def names(directory: Path) -> list[str]:
    """Return what a directory holds; nothing where there is none."""
    return [p.name for p in directory.iterdir()] if directory.is_dir() else []


def restored(run: Path) -> list[int]:
    """Return the steps that the run went on from, in the order of its starts."""
    return [event["step"] for event in read_events(run, "restored")]


def numbers(run: Path) -> dict[int, dict[str, float]]:
    """Return by step all numbers that a run is to repeat, as they are read back."""
    return {
        line["step"]: {k: v for k, v in line.items() if not MEASURED.search(k)}
        for line in read_metrics(run)
    }


def adapter(run: Path) -> dict[str, bytes]:
    """Return the bytes of every trained array of a finished run."""
    found = {}

    def keep(path, item):
        if isinstance(item, h5py.Dataset):
            found[path] = item[()].tobytes()

    with h5py.File(run / "artifacts/lora/adapter.lora.h5") as file:
        file.visititems(keep)
    return found


def state(run: Path, step: int) -> dict[str, int]:
    """Return the digest of every array of a checkpoint, the optimizer's too."""
    record = json.loads((run / f"checkpoints/{step}/record.json").read_text())
    return {name: fact["digest"] for name, fact in record["arrays"].items()}


def arrays(run: Path) -> dict[int, dict[str, str]]:
    """Return by step the hashes of arrays that were restored after the run."""
    return {int(k): v for k, v in json.loads((run / ARRAYS).read_text()).items()}


def differences(run: Path, unbroken: Path) -> list[str]:
    """Return in what a finished run is not bit for bit the unbroken one."""
    return differing_numbers(numbers(run), numbers(unbroken)) + differing_ends(
        run, unbroken
    )


def differing_ends(run: Path, unbroken: Path) -> list[str]:
    """Return in what the end of a run is another one, and what it left behind."""
    found, last = [], committed(unbroken)[-1]
    if last not in committed(run):
        found.append(f"step {last} is not committed")
    elif state(run, last) != state(unbroken, last):
        found.append(f"another state at step {last}")
    if adapter(run) != adapter(unbroken):
        found.append("other adapters")
    return found + leftovers(run)


def differing_numbers(found: dict, expected: dict) -> list[str]:
    """Return the steps of which any number differs, or that only one of both has."""
    steps = sorted(found.keys() | expected.keys())
    wrong = [step for step in steps if found.get(step) != expected.get(step)]
    shown = ", ".join(map(str, wrong[:SHOWN]))
    return [f"other numbers at {len(wrong)} steps: {shown}"] if wrong else []


def leftovers(run: Path) -> list[str]:
    """Return what a run should have cleaned up behind itself."""
    paths = [path.relative_to(run) for path in run.rglob("*")]
    left = [str(path) for path in paths if TEMPORARY.search(path.name)]
    return [f"left: {', '.join(sorted(left)[:SHOWN])}"] if left else []
