"""What a launch renders, and recorders on PATH for the tools that it calls."""

import json
import os
import sys

import pytest

from launch.start import start
from launch.targets import render_target
from trainer.__main__ import compose

RECORDERS = os.path.join(os.path.dirname(__file__), "recorders")
BUCKET = "run.root=gs://bucket/runs"
NEEDS = {
    "tpu_vm": [BUCKET],
    "tpu_queued": [BUCKET],
    "gke": [BUCKET, "launch.image=registry/trainer:1"],
    "slurm": [],
    "skypilot": [BUCKET],
}


@pytest.fixture
def rendered():
    """Return the files of a launch for what was typed and for the training's words."""

    def files(target, *typed, words=("preset=gemma2_tiny_en",)):
        config = compose([f"launch={target}", *NEEDS[target], *typed])
        return render_target(config, list(words)).files

    return files


@pytest.fixture
def launched():
    """Do what `python -m trainer` does with a launch, and return the exit code."""

    def run(target, *typed):
        words = [f"launch={target}", *NEEDS.get(target, []), *typed]
        return start(compose(words), words)

    return run


class Tools:
    """A PATH of recorders, and what they have noted."""

    def __init__(self, place, monkeypatch):
        self.place, self._monkeypatch = place / "notes", monkeypatch
        self.place.mkdir()
        self._folder = place / "tools"
        self._folder.mkdir()
        monkeypatch.setenv("PATH", f"{self._folder}:/usr/bin:/bin")
        monkeypatch.setenv("RECORDER", str(self.place))
        monkeypatch.chdir(place)

    def put(self, name, recorder="note.py"):
        tool = self._folder / name
        call = f'"{sys.executable}" "{RECORDERS}/{recorder}"'
        named = f" {name}" if recorder == "note.py" else ""
        tool.write_text(f'#!/bin/sh\nexec {call}{named} "$@"\n')
        tool.chmod(0o755)

    def slurm(self):
        self.put("sbatch", "sbatch.py")
        self.put("srun", "srun.py")
        self.put("scontrol")
        return self

    def calls(self, name):
        file = self.place / f"{name}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]

    @property
    def log(self):
        (file,) = self.place.glob("*.log")
        return file.read_text()

    @property
    def ended(self):
        return (self.place / "ended").read_text()


@pytest.fixture
def tools(tmp_path, monkeypatch):
    return Tools(tmp_path, monkeypatch)
