"""Two processes keep their run in a bucket: over HTTP, with Orbax and TensorStore."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from etils.epath import backend
from fsspec.registry import _registry

from tests.object_server import ENDPOINT, GoogleStore
from trainer import storage
from trainer.tracking import read_events, read_metrics

WORKER = Path(__file__).parent / "bucket_worker.py"
STEPS = 12
WORDS = (
    f"trainer.num_train_steps={STEPS}",
    "checkpoint.every_steps=3",
)
ANOTHER_MESH = 1e-5  # relative: sums in float32 in another order


@pytest.fixture
def bucket(repository, monkeypatch):
    """Return a root in a bucket that other processes see as well."""
    command = [sys.executable, "tests/object_server.py", "0"]
    server = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE)
    port = server.stdout.readline().decode().split()[-1]
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")  # TensorStore's, too
    for scheme in GoogleStore.protocol:
        fsspec.register_implementation(scheme, GoogleStore, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield "gs://bucket/runs"
    for scheme in GoogleStore.protocol:
        _registry.pop(scheme, None)
    backend.fsspec_backend._get_filesystem.cache_clear()
    server.kill()
    server.communicate()


@pytest.mark.timeout(240)
def test_a_run_in_a_bucket_is_killed_on_two_and_goes_on_on_one(starter, bucket):
    run = f"{bucket}/moved"
    moved = [*WORDS, "run.name=moved", f"run.root={bucket}"]
    local = starter.start(["run.name=local", "mesh=1x1", *WORDS], processes=1)
    two = starter.start([[*moved, "mesh=2x1"]], processes=2, worker=WORKER)
    until = time.monotonic() + 120
    while not storage.exists(f"{run}/checkpoints/3/commit_success.txt"):
        assert time.monotonic() < until, two.everything()
        assert two.processes[1].poll() is None, two.everything()
        time.sleep(0.02)
    for process in two.processes:
        process.send_signal(signal.SIGKILL)
    assert two.wait(60) == [-signal.SIGKILL] * 2
    assert storage.exists(f"{run}/LOCK")

    one = starter.start([[*moved, "mesh=1x1"]], processes=1, worker=WORKER)
    assert one.wait(90) == [0], one.everything()
    assert local.wait(60) == [0], local.everything()
    assert [e["step"] >= 3 for e in read_events(run, "restored")] == [True]
    losses = {m["step"]: m["train/loss"] for m in read_metrics(run) if m["step"]}
    assert losses == pytest.approx(starter.losses("local"), rel=ANOTHER_MESH)
    assert not storage.exists(f"{run}/LOCK")
    assert storage.exists(f"{run}/artifacts/lora/adapter.lora.h5")
