"""Launches that really train: four processes here, and two in Slurm's environment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launch.conftest import Tools
from trainer.tracking import read_metrics

STEPS = 150  # enough for a signal to come in between
PRESET = Path(__file__).parents[1] / "golden/keras_hub/gemma2"
TRAINING = [
    f"preset.name={PRESET}",
    "preset.dtype=float32",
    f"trainer.num_train_steps={STEPS}",
    "trainer.global_batch_size=8",
    "trainer.eval_every_steps=0",
    "trainer.sample_prompts=0",
    "artifacts.preset=false",
    "data.sequence_length=32",
    "data.eval_rows=8",
    "device.simulated=1",
    "distributed.heartbeat_seconds=20",
    "run.name=run",
]
SECONDS = 200


def launch_local(repository, folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "launch=local", *TRAINING, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(pid):
    """Return the processes that a supervisor has, in the order of their indices."""
    return [
        int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def steps(folder):
    metrics = read_metrics(folder / "outputs/run")
    return [m["step"] for m in metrics if "train/loss" in m]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 83, id="preempted"),
        pytest.param(signal.SIGKILL, 6, id="lost", marks=pytest.mark.slow),
    ],
)
def test_four_processes_are_one_run_that_starts_again_by_itself(
    repository, tmp_path, number, code
):
    words = ["launch.processes=4", "mesh=2x2", "checkpoint.every_steps=5"]
    launched = launch_local(repository, tmp_path, *words)
    output = []
    for line in launched.stdout:
        output.append(line)
        if line.startswith("[0] step 1/"):
            os.kill(children(launched.pid)[2], number)
            break
    rest, _ = launched.communicate(timeout=SECONDS)
    text = "".join(output) + rest
    assert launched.returncode == 0, text
    assert f"launch: ended with {code}; restart 1 of 10" in text
    assert "launch: process 2 ended with" in text
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["run"]
    assert steps(tmp_path) == list(range(1, STEPS + 1))
    assert not [line for line in text.splitlines() if line.startswith("[1] step")]


def test_two_processes_meet_by_what_slurm_tells_them(
    repository, tmp_path, launched, monkeypatch
):
    tools = Tools(tmp_path, monkeypatch).slurm()
    monkeypatch.setenv("PYTHONPATH", str(repository))
    words = ["launch.submit=true", "launch.processes=2", "mesh=1x2"]
    assert launched("slurm", *words, *TRAINING) == 0
    assert tools.ended == "0 after 0", tools.log
    assert f"0: step {STEPS}/{STEPS}" in tools.log
    assert "1: step" not in tools.log
    assert steps(tmp_path) == list(range(1, STEPS + 1))


def test_a_configuration_error_starts_nothing(repository, tmp_path):
    began = time.monotonic()
    words = ["launch.processes=4", "mesh=3x2"]
    launched = launch_local(repository, tmp_path, *words)
    text, _ = launched.communicate(timeout=SECONDS)
    assert launched.returncode == 2
    assert "mesh.shape" in text
    assert time.monotonic() - began < SECONDS
    assert list(tmp_path.iterdir()) == []
