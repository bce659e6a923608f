"""What a launch renders, as text and as data."""

import pytest

from launch.start import start
from launch.targets import render_target
from trainer.__main__ import compose

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
        words = [f"launch={target}", *NEEDS[target], *typed]
        return start(compose(words), words)

    return run
