"""Without a key W&B works offline, asks nothing, and one run stays one run."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import storage
from trainer.config.schema import TrackerConfig
from trainer.tracking import Artifact, Lineage, Sample, open_tracker, read_events

_spec = importlib.util.spec_from_file_location(
    "wandb_files", Path(__file__).with_name("wandb_files.py")
)
wandb_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(wandb_files)

INPUTS = [
    Lineage(name="gemma2_tiny_en", kind="model", source="built-in", digest="aa11"),
    Lineage(name="wordnet", kind="dataset", source="embedded", digest="bb22"),
]
SAMPLE = Sample(prompt="p", reference="r", before="b", after="a")


@pytest.fixture(autouse=True)
def keyless(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def start(directory, said=None, **config):
    return open_tracker(
        TrackerConfig(name="wandb", **config),
        directory=directory,
        name="tiny-wordnet-1a2b3c4d",
        settings={"lora": {"rank": 8}, "seed": 0},
        lineage=INPUTS,
        say=[].append if said is None else said.append,
    )


def logs(directory):
    return sorted(Path(directory).glob("wandb/offline-run-*/*.wandb"))


def test_numbers_samples_settings_and_inputs_are_in_the_offline_run(tmp_path):
    tracker = start(tmp_path)
    tracker.log(1, {"train/loss": 2.5})
    tracker.log(2, {"train/loss": math.nan})
    tracker.samples(2, [SAMPLE])
    tracker.event("plan", {"mesh": "1x8"})
    tracker.event("skipped", {"step": 3, "rows": ["rows.jsonl:7"]})
    tracker.close()
    (log,) = logs(tmp_path)
    lines = list(wandb_files.history(log))
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert lines[0]["train/loss"] == 2.5
    (table,) = log.parent.rglob("samples*.table.json")
    assert json.loads(table.read_text())["data"] == [[2, "p", "r", "b", "a"]]
    told = wandb_files.summary(log)
    assert told["plan/mesh"] == "1x8"
    assert told["skipped/step"] == 3
    assert "skipped/rows" not in told
    found = wandb_files.settings(log)
    assert found["lora"] == {"rank": 8}
    assert [item["digest"] for item in found["inputs"]] == ["aa11", "bb22"]


def test_one_line_says_how_to_upload(tmp_path, capfd):
    said = []
    start(tmp_path, said).close()
    advice = f"W&B works offline; to upload: wandb sync {tmp_path}/wandb"
    assert said == [advice, advice]
    assert capfd.readouterr().out == ""


def test_only_named_artifacts_are_sent_and_nothing_is_copied(tmp_path):
    tracker = start(tmp_path / "run", upload=["lora"])
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter.lora.h5").write_bytes(bytes(200_000))
    (tmp_path / "card.md").write_text("card")
    for name, path in {"lora": "lora", "preset": "lora", "card": "card.md"}.items():
        facts = {"rank": 8}
        tracker.artifact(Artifact(name=name, path=str(tmp_path / path), metadata=facts))
    tracker.close()
    (log,) = logs(tmp_path / "run")
    (sent,) = wandb_files.artifacts(log)
    assert (
        sent.type == "lora" and '"bb22"' in sent.metadata and '"rank"' in sent.metadata
    )
    (entry,) = sent.manifest.contents
    assert entry.local_path == str(tmp_path / "lora" / "adapter.lora.h5")
    sizes = [f.stat().st_size for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert max(sizes) < 200_000


def test_a_single_file_is_an_artifact_too(tmp_path):
    (tmp_path / "card.md").write_text("card")
    tracker = start(tmp_path / "run", upload=["card"])
    tracker.artifact(Artifact(name="card", path=str(tmp_path / "card.md")))
    tracker.close()
    (sent,) = wandb_files.artifacts(logs(tmp_path / "run")[0])
    assert [entry.path for entry in sent.manifest.contents] == ["card.md"]


def test_a_killed_run_goes_on_as_the_same_run(tmp_path):
    script = (
        "import os, signal\n"
        "from trainer.config.schema import TrackerConfig\n"
        "from trainer.tracking import open_tracker\n"
        "tracker = open_tracker(TrackerConfig(name='wandb'), name='n',"
        f" directory={str(tmp_path)!r}, settings={{}}, lineage=[])\n"
        "tracker.log(1, {'train/loss': 3.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=False, stdin=subprocess.DEVNULL
    )
    first = storage.read_text(tmp_path / "wandb-id")
    tracker = start(tmp_path)
    tracker.log(1, {"train/loss": 3.0})
    tracker.close()
    assert storage.read_text(tmp_path / "wandb-id") == first
    assert {log.name for log in logs(tmp_path)} == {f"run-{first}.wandb"}


def test_a_run_of_a_sweep_has_the_id_that_its_agent_gave(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agent456")
    start(tmp_path).close()
    assert storage.read_text(tmp_path / "wandb-id") == "agent456"
    assert [log.name for log in logs(tmp_path)] == ["run-agent456.wandb"]


def test_wandb_files_of_a_remote_run_are_copied_to_it(bucket):
    said = []
    tracker = start(bucket, said)
    tracker.log(1, {"train/loss": 3.0})
    tracker.flush()
    tracker.close()
    (run,) = storage.list_names(f"{bucket}/wandb")
    assert any(
        n.endswith(".wandb") for n in storage.list_names(f"{bucket}/wandb/{run}")
    )
    assert f"copy {bucket}/wandb here, then wandb sync wandb" in said[0]


def test_variables_are_taken_back_for_the_next_run(tmp_path):
    tracker = start(tmp_path)
    assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "wandb" / "data")
    tracker.close()
    assert "WANDB_DATA_DIR" not in os.environ


def test_inputs_are_an_event_whatever_the_tracker(tmp_path):
    open_tracker(
        TrackerConfig(name="jsonl"),
        directory=tmp_path,
        name="n",
        settings={},
        lineage=INPUTS,
    ).close()
    (event,) = read_events(tmp_path, "inputs")
    assert [item["name"] for item in event["inputs"]] == ["gemma2_tiny_en", "wordnet"]


def test_jsonl_runs_never_import_wandb(tmp_path):
    script = (
        "import sys\n"
        "from trainer.config.schema import TrackerConfig\n"
        "from trainer.tracking import open_tracker\n"
        f"open_tracker(TrackerConfig(), directory={str(tmp_path)!r}, name='n',"
        " settings={}, lineage=[]).close()\n"
        "assert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
