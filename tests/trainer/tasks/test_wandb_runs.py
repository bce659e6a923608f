"""Whole runs in processes of their own, online at a W&B server on this machine."""

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest

from trainer.tracking import read_samples
from trainer.tracking.metrics_log import read_events

_spec = importlib.util.spec_from_file_location(
    "wandb_server", Path(__file__).parents[1] / "tracking" / "wandb_server.py"
)
wandb_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(wandb_server)

ONLINE = ("tracker=wandb", "tracker.mode=online", "tracker.upload=[lora,preset]")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Let W&B's client, in the processes that a test starts, find this server only."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    server = wandb_server.WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield server
    server.close()


def sent_losses(server, identity):
    """Return the training loss by step as the server has it, the last of repeated."""
    lines = [json.loads(line) for line in server.history[identity]]
    return {m["step"]: m["train/loss"] for m in lines if "train/loss" in m}


def test_a_run_tells_wandb_all_that_it_keeps(runs, server):
    code, output = runs.finish("run.name=whole", *ONLINE)
    assert code == 0, output
    directory = runs.root / "whole"
    identity = (directory / "wandb-id").read_text()
    assert list(server.runs) == [identity]
    assert server.ends == [(identity, 0)]
    assert sent_losses(server, identity) == pytest.approx(runs.losses("whole"))
    assert server.used == [
        (identity, "model", "gemma2"),
        (identity, "dataset", "wordnet"),
    ]
    sent = {a["type"]: a for a in server.artifacts.values() if a["run"] == identity}
    inputs = read_events(directory, "inputs")[0]["inputs"]
    for kind in ("lora", "model"):
        assert sent[kind]["state"] == "COMMITTED"
        assert json.loads(sent[kind]["metadata"])["inputs"] == inputs
    for name in ("lora/adapter.lora.h5", "preset/model.weights.h5"):
        kept = (directory / "artifacts" / name).read_bytes()
        assert server.uploads[name.split("/")[1]] == kept
    tables = [t for n, t in server.uploads.items() if n.startswith("media/table/")]
    rows = [row for table in tables for row in json.loads(table)["data"]]
    samples = read_samples(read_events(directory))
    assert [row[1:] for row in rows if row[0] == 6] == [
        [s.prompt, s.reference, s.before, s.after] for s in samples
    ]


def test_a_killed_run_goes_on_as_one_run_of_wandb(runs, server):
    words = ("run.name=killed", "trainer.num_train_steps=30", *ONLINE)
    assert runs.interrupt(*words, step=5)[0] == -signal.SIGKILL
    identity = (runs.root / "killed" / "wandb-id").read_text()
    code, output = runs.finish(*words)
    assert code == 0, output
    assert list(server.runs) == [identity] == server.resumed
    assert f"runs/{identity}" in output
    losses = sent_losses(server, identity)
    assert sorted(losses)[-1] == 30
    assert losses == pytest.approx({s: runs.losses("killed")[s] for s in losses})
    assert server.ends[-1] == (identity, 0)
