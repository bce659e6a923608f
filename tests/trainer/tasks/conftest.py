"""Whole runs of a small real preset, in this process and in processes of their own."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.__main__ import compose
from trainer.run import run

SMALL = (
    "mesh=2x4",
    "trainer.num_train_steps=6",
    "trainer.eval_every_steps=3",
    "trainer.sample_prompts=2",
    "generate.max_new_tokens=4",
    "checkpoint.every_steps=2",
    "data.sequence_length=64",
    "data.eval_rows=20",
)


@dataclasses.dataclass(frozen=True)
class Runs:
    """Starts runs of the golden Gemma 2 below one root."""

    repository: Path
    root: Path

    def overrides(self, *more):
        preset = self.repository / "tests/golden/keras_hub/gemma2"
        base = (f"preset.name={preset}", *SMALL)  # dtype: what suits a CPU
        given = {word.split("=", 1)[0] for word in more}
        kept = [word for word in base if word.split("=", 1)[0] not in given]
        return [*kept, f"run.root={self.root}", *more]

    def config(self, *more):
        return compose(self.overrides(*more))

    def here(self, *more):
        """Run in this process, on its eight simulated devices."""
        return run(self.config(*more))

    def start(self, *more):
        """Start a process of its own on one device."""
        words = [w for w in self.overrides(*more) if not w.startswith("mesh=2x4")]
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *words, "device.simulated=1"],
            cwd=self.repository,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, *more):
        """Run a process to its end; return exit code and output."""
        process = self.start(*more)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def interrupt(self, *more, step, with_signal=signal.SIGKILL):
        """Start a process and signal it once `step` is logged; return code, output."""
        process = self.start(*more)
        name = next(w.split("=")[1] for w in more if w.startswith("run.name="))
        while process.poll() is None and len(self.losses(name)) < step:
            time.sleep(0.02)
        process.send_signal(with_signal)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def metrics(self, name):
        path = self.root / name / "metrics.jsonl"
        if not path.exists():
            return []
        whole = path.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def losses(self, name):
        """Return the training loss by step, the last of repeated ones."""
        lines = self.metrics(name)
        return {m["step"]: m["train/loss"] for m in lines if "train/loss" in m}

    def evaluations(self, name):
        lines = self.metrics(name)
        return {m["step"]: m["eval/loss"] for m in lines if "eval/loss" in m}


@pytest.fixture(scope="session")
def runs_below(repository):
    """Return a function that makes `Runs` below a directory."""
    return lambda root: Runs(repository, root)


@pytest.fixture
def runs(runs_below, tmp_path):
    return runs_below(tmp_path)


@pytest.fixture(scope="module")
def finished(runs_below, tmp_path_factory):
    """A run that trained to its end, shared by tests that only look at it."""
    made = runs_below(tmp_path_factory.mktemp("finished"))
    assert made.here("run.name=whole") == 0
    return made
