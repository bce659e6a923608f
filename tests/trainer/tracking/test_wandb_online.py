"""Online, W&B gets metrics, artifacts and lineage; a killed run stays one run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import storage

_spec = importlib.util.spec_from_file_location(
    "wandb_server", Path(__file__).with_name("wandb_server.py")
)
wandb_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(wandb_server)

START = """
import os, pathlib, signal, sys
from trainer.config.schema import TrackerConfig
from trainer.tracking import Artifact, Lineage, open_tracker
root = pathlib.Path(sys.argv[1])
inputs = [
    Lineage(name="gemma2_tiny_en", kind="model", source="built-in", digest="aa11"),
    Lineage(name="word net", kind="dataset", source="embedded", digest="bb22"),
]
tracker = open_tracker(
    TrackerConfig(name="wandb", mode=sys.argv[2]), directory=root / "run", name="tiny",
    settings={"lora": {"rank": 8}}, lineage=inputs,
)
"""
LORA = """
(root / "adapter.lora.h5").write_bytes(b"weights")
tracker.artifact(Artifact(name="lora", path=str(root / "adapter.lora.h5")))
"""


@pytest.fixture
def server():
    server = wandb_server.WandbServer()
    yield server
    server.close()


def environment(tmp_path, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return {**kept, "HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), **variables}


def with_key(tmp_path, url):
    return environment(tmp_path, WANDB_BASE_URL=url, WANDB_API_KEY="0123456789" * 4)


def run(tmp_path, script, variables, mode="auto"):
    return subprocess.run(
        [sys.executable, "-c", START + script, str(tmp_path), mode],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_metrics_artifacts_and_lineage_reach_the_server(tmp_path, server):
    script = "tracker.log(1, {'train/loss': 2.5})" + LORA + "tracker.close()"
    done = run(tmp_path, script, with_key(tmp_path, server.url))
    assert done.returncode == 0, done.stderr
    identity = storage.read_text(tmp_path / "run" / "wandb-id")
    assert list(server.runs) == [identity]
    assert server.used == [
        (identity, "model", "gemma2_tiny_en"),
        (identity, "dataset", "word-net"),
    ]
    assert json.loads(server.history[identity][0])["train/loss"] == 2.5
    assert server.ends == [(identity, 0)]
    sent = [item for item in server.artifacts.values() if item["type"] == "lora"]
    assert [item["state"] for item in sent] == ["COMMITTED"]
    assert '"bb22"' in sent[0]["metadata"]
    assert server.uploads["adapter.lora.h5"] == b"weights"
    assert f"W&B: {server.url}/team/gemma-finetuning/runs/{identity}" in done.stdout


def test_a_killed_run_goes_on_as_one_run(tmp_path, server):
    variables = with_key(tmp_path, server.url)
    kill = "tracker.log(1, {'train/loss': 3.0}); os.kill(os.getpid(), signal.SIGKILL)"
    assert run(tmp_path, kill, variables).returncode == -signal.SIGKILL
    again = "tracker.log(1, {'train/loss': 3.0}); tracker.log(2, {'train/loss': 2.0})"
    done = run(tmp_path, again + "; tracker.close()", variables)
    assert done.returncode == 0, done.stderr
    (identity,) = server.runs
    assert server.resumed == [identity]
    assert server.steps(identity)[-2:] == [1, 2]


def test_a_preempted_run_is_marked(tmp_path, server):
    done = run(tmp_path, "tracker.close(83)", with_key(tmp_path, server.url))
    assert done.returncode == 0, done.stderr
    assert [code for _, code in server.ends] == [83]
    assert set(server.preempted) == set(server.runs)


def test_an_offline_run_is_uploaded_by_the_command_that_it_names(tmp_path, server):
    script = "tracker.log(1, {'train/loss': 2.5}); tracker.close()"
    done = run(tmp_path, script, environment(tmp_path))
    advice = done.stdout.splitlines()[-1].partition("to upload: wandb sync ")[2]
    assert advice == str(tmp_path / "run" / "wandb")
    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--yes", advice],
        cwd=tmp_path,  # it writes its own log into ./wandb
        env=with_key(tmp_path, server.url),
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    (identity,) = server.runs
    assert identity == storage.read_text(tmp_path / "run" / "wandb-id")
    assert server.steps(identity) == [1]


def test_a_server_that_refuses_the_key_does_not_stop_an_automatic_run(tmp_path):
    variables = environment(tmp_path, WANDB_API_KEY="short")
    done = run(tmp_path, "tracker.close()", variables)
    assert done.returncode == 0, done.stderr
    assert "W&B cannot be reached" in done.stdout
    assert "W&B works offline; to upload" in done.stdout


def test_a_server_that_refuses_the_key_is_told_when_online_is_wanted(tmp_path):
    variables = environment(tmp_path, WANDB_API_KEY="short")
    done = run(tmp_path, "tracker.close()", variables, mode="online")
    assert "a W&B server that answers and takes the key" in done.stderr


def test_a_server_that_does_not_answer_does_not_stop_an_automatic_run(tmp_path):
    impatient = (
        "from trainer.tracking import wandb_tracker\n"
        "wandb_tracker._AUTO_TIMEOUT_SECONDS = 1.0\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", impatient + START + "tracker.close()", tmp_path, "auto"],
        env=with_key(tmp_path, "http://127.0.0.1:9"),  # nobody listens on `discard`
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "W&B cannot be reached" in done.stdout
    assert f"wandb sync {tmp_path}/run/wandb" in done.stdout
